{{/* What the containers have in common. */}}
{{- define "tuneloop.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "tuneloop.logEnv" -}}
- name: TUNELOOP_LOG_FORMAT
  value: {{ .Values.config.logFormat | quote }}
- name: RUST_LOG
  value: {{ .Values.config.logLevel | quote }}
{{- end }}

{{/* The environment of `tuneloop serve`. */}}
{{- define "tuneloop.env" -}}
{{- $secret := include "tuneloop.secretName" . -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: DATABASE_URL
- name: OPENAI_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: OPENAI_API_KEY
{{- with .Values.webhook.existingSecret }}
- name: OPENAI_WEBHOOK_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: OPENAI_WEBHOOK_SECRET
{{- end }}
{{- with .Values.azure }}
{{- if .endpoint }}
- name: AZURE_OPENAI_ENDPOINT
  value: {{ .endpoint | quote }}
- name: AZURE_OPENAI_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: AZURE_OPENAI_API_KEY
{{- end }}
{{- end }}
{{- if .Values.prices }}
- name: TUNELOOP_PRICES
  value: /etc/tuneloop/prices.json
{{- end }}
- name: TUNELOOP_LISTEN
  value: "0.0.0.0:8080"
- name: TUNELOOP_ROLES
  value: {{ join "," .Values.config.roles | quote }}
- name: TUNELOOP_SHUTDOWN_GRACE_SECONDS
  value: {{ int .Values.config.shutdownGraceSeconds | quote }}
- name: DATASET_STORE_URL
  value: {{ default "file:///var/lib/tuneloop/data/datasets" .Values.datasets.url | quote }}
{{ include "tuneloop.logEnv" . }}
{{- with .Values.config.openaiBaseUrl }}
- name: OPENAI_BASE_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.config.mlflowTrackingUri }}
- name: MLFLOW_TRACKING_URI
  value: {{ . | quote }}
{{- end }}
{{- with .Values.mlflow.existingSecret }}
{{- range list "MLFLOW_TRACKING_USERNAME" "MLFLOW_TRACKING_PASSWORD" "MLFLOW_TRACKING_TOKEN" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.mlflow.existingSecret }}
      key: {{ . }}
      optional: true
{{- end }}
{{- end }}
{{- with .Values.config.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.pipelines }}
- name: FINE_TUNING_MIN_EXAMPLES
  value: {{ int .minExamples | quote }}
- name: FINE_TUNING_ENGAGEMENT_THRESHOLD
  value: {{ .engagementThreshold | quote }}
- name: HOOK_MODEL
  value: {{ .hook.model | quote }}
- name: HOOK_BASE_MODEL
  value: {{ .hook.baseModel | quote }}
- name: BODY_MODEL
  value: {{ .body.model | quote }}
- name: BODY_BASE_MODEL
  value: {{ .body.baseModel | quote }}
{{- end }}
{{- with .Values.config.publicUrl }}
- name: TUNELOOP_PUBLIC_URL
  value: {{ . | quote }}
{{- end }}
{{- if .Values.config.allowPrivateTargets }}
- name: TUNELOOP_ALLOW_PRIVATE_TARGETS
  value: "true"
{{- end }}
{{- if .Values.publication.files.enabled }}
- name: TUNELOOP_PUBLICATION_DIR
  value: /var/lib/tuneloop/publication
{{- end }}
{{- range .Values.publication.signing.keys }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.publication.signing.existingSecret }}
      key: {{ . }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
