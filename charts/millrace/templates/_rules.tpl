{{/*
What the operator may do in the namespaces it watches: exactly what `millrace-operator rules` prints, with
the reason of each in operator/src/rules.rs.
*/}}
{{- define "millrace.rules" -}}
- apiGroups: [millrace.dev]
  resources: [brokerclusters]
  verbs: [get, list, watch]
- apiGroups: [millrace.dev]
  resources: [queues, topics]
  verbs: [list, watch]
- apiGroups: [millrace.dev]
  resources: [brokerclusters/status, queues/status, topics/status]
  verbs: [patch]
- apiGroups: [millrace.dev]
  resources: [brokerclusters/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [configmaps, serviceaccounts, services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* Cluster-wide only: without it the operator waits longer before it takes a resource for gone. */}}
{{- define "millrace.definitionRules" -}}
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [brokerclusters.millrace.dev, queues.millrace.dev, topics.millrace.dev]
  verbs: [get]
{{- end }}

{{/* Leader election, in the release's own namespace. */}}
{{- define "millrace.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end }}
