//! Kubernetes resources of Millrace, their rules, and the topology they compile to.
