{{/* The name of everything: the release's, with the chart's unless it is part of it. */}}
{{- define "[= plan.name =].fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "[= plan.name =].labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/name: [= plan.name =]
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: [= plan.name =]
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "[= plan.name =].image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest | quote -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote -}}
{{- end -}}
{{- end -}}
