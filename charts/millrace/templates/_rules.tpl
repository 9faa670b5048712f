{{/*
What the operator may do in the namespaces it watches: exactly what it declares in its own table, which
a test compares with this.
*/}}
{{- define "millrace.rules" -}}
- apiGroups: [millrace.dev]
  resources: [brokerclusters, queues, topics]
  verbs: [get, list, watch]
- apiGroups: [millrace.dev]
  resources: [brokerclusters/status, queues/status, topics/status]
  verbs: [get, patch]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts, secrets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* Leader election, in the release's own namespace. */}}
{{- define "millrace.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, patch, update]
{{- end }}
