{{- define "tuneloop.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tuneloop.fullname" -}}
{{- $name := include "tuneloop.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tuneloop.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tuneloop.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tuneloop.labels" -}}
{{ include "tuneloop.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "tuneloop.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tuneloop.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "tuneloop.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tuneloop.secretName" -}}
{{ default (include "tuneloop.fullname" .) .Values.secret.existingSecret }}
{{- end }}

{{- define "tuneloop.claimName" -}}
{{ default (printf "%s-datasets" (include "tuneloop.fullname" .) | trunc 253) .Values.datasets.persistence.existingClaim }}
{{- end }}

{{- define "tuneloop.pricesName" -}}
{{ printf "%s-prices" (include "tuneloop.fullname" .) | trunc 253 }}
{{- end }}

{{- define "tuneloop.publicationName" -}}
{{ printf "%s-publication" (include "tuneloop.fullname" .) | trunc 253 }}
{{- end }}

{{- define "tuneloop.publicationNamespace" -}}
{{ default .Release.Namespace .Values.publication.configMaps.namespace }}
{{- end }}

{{/* "true" when datasets are on a volume of the cluster that one pod at a time can use. */}}
{{- define "tuneloop.exclusiveVolume" -}}
{{- with .Values.datasets -}}
{{- if and (not .url) .persistence.enabled (ne .persistence.accessMode "ReadWriteMany") }}true{{ end }}
{{- end }}
{{- end }}

{{/* What no single value can be wrong about. */}}
{{- define "tuneloop.checks" -}}
{{- with .Values.secret }}
{{- if not .existingSecret }}
{{- $_ := required "\n\nSet secret.databaseUrl (postgres://user:password@host:5432/database), or secret.existingSecret to the name of a Secret with the keys DATABASE_URL and OPENAI_API_KEY.\n" .databaseUrl }}
{{- $_ := required "\n\nSet secret.openaiApiKey, or secret.existingSecret to the name of a Secret with the keys DATABASE_URL and OPENAI_API_KEY.\n" .openaiApiKey }}
{{- else if or .databaseUrl .openaiApiKey }}
{{- fail "\n\nsecret.existingSecret holds both keys: leave secret.databaseUrl and secret.openaiApiKey empty.\n" }}
{{- end }}
{{- end }}
{{- if ne (empty .Values.azure.endpoint) (empty .Values.azure.existingSecret) }}
{{- fail "\n\nSet azure.endpoint and azure.existingSecret (the name of a Secret with the key AZURE_OPENAI_API_KEY) together, or neither.\n" }}
{{- end }}
{{- if and .Values.publication.configMaps.enabled (eq (include "tuneloop.serviceAccountName" .) "default") }}
{{- fail "\n\npublication.configMaps.enabled would give its Role to every pod of the namespace: set serviceAccount.create, or serviceAccount.name to an account of its own.\n" }}
{{- end }}
{{- if ne .Values.publication.files.enabled (not (empty .Values.publication.files.existingClaim)) }}
{{- fail "\n\nSet publication.files.enabled and publication.files.existingClaim (the name of a PersistentVolumeClaim) together, or neither.\n" }}
{{- end }}
{{- if ne (empty .Values.publication.signing.existingSecret) (empty .Values.publication.signing.keys) }}
{{- fail "\n\nSet publication.signing.existingSecret and publication.signing.keys (those of its keys that the pods have) together, or neither.\n" }}
{{- end }}
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.datasets.url) }}
{{- if or (not .Values.datasets.persistence.enabled) (include "tuneloop.exclusiveVolume" .) }}
{{- fail "\n\nreplicaCount is above 1, but the pods could not share their datasets: set datasets.persistence.accessMode to ReadWriteMany (with a storage class that has it), or datasets.url.\n" }}
{{- end }}
{{- end }}
{{- end }}
