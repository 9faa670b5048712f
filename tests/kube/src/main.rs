//! Millrace on a real Kubernetes, any kubeconfig.

fn main() {}
