{{/* Names and labels of all objects. */}}

{{/* 50 characters at most: the chart appends words, the cluster a hash, and 63 is the limit of names and labels. */}}
{{- define "gemma4-nim.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What the selectors of workloads hold. It can never change, so it depends on nothing that a value sets. */}}
{{- define "gemma4-nim.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/component: server
{{- end -}}

{{/* metadata of an object: dict "root" . "name" NAME "component" WORD "labels" MAP "annotations" MAP. */}}
{{- define "gemma4-nim.metadata" -}}
{{- $labels := include "gemma4-nim.labels" . | fromYaml | merge (deepCopy (.labels | default dict)) -}}
{{- $annotations := merge (deepCopy (.annotations | default dict)) .root.Values.commonAnnotations -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Labels of an object: dict "root" . "component" WORD. The chart's own win over commonLabels. */}}
{{- define "gemma4-nim.labels" -}}
{{- $own := include "gemma4-nim.selectorLabels" .root | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/component" (.component | default "server") -}}
{{- $_ := set $own "app.kubernetes.io/version" (.root.Chart.AppVersion | toString) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63) -}}
{{- merge $own .root.Values.commonLabels | toYaml -}}
{{- end -}}

{{- define "gemma4-nim.serviceName" -}}
{{- .Values.service.name | default (include "gemma4-nim.fullname" .) -}}
{{- end -}}

{{/* The service's name as every pod of the cluster knows it. */}}
{{- define "gemma4-nim.serviceHost" -}}
{{- include "gemma4-nim.serviceName" . -}}.{{- .Release.Namespace -}}.svc
{{- end -}}

{{/* A StatefulSet's name for its service can never change, so the value service.name does not reach it. */}}
{{- define "gemma4-nim.headlessName" -}}
{{- include "gemma4-nim.fullname" . -}}-sts
{{- end -}}

{{- define "gemma4-nim.servicePort" -}}
{{- .Values.service.openai_port | default .Values.service.openaiPort | int -}}
{{- end -}}

{{- define "gemma4-nim.serverPort" -}}
{{- .Values.model.openai_port | default .Values.model.openaiPort | int -}}
{{- end -}}

{{- define "gemma4-nim.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "gemma4-nim.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "gemma4-nim.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion | toString) -}}
{{- end -}}
{{- end -}}

{{- define "gemma4-nim.pullSecrets" -}}
{{- $secrets := deepCopy .Values.imagePullSecrets -}}
{{- if .Values.model.ngcAPIKey -}}
{{- $secrets = append $secrets (dict "name" (printf "%s-ngc-pull" (include "gemma4-nim.fullname" .))) -}}
{{- end -}}
{{- with $secrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* The workload that autoscalers and the disruption budget mean. */}}
{{- define "gemma4-nim.workload" -}}
apiVersion: apps/v1
kind: {{ ternary "StatefulSet" "Deployment" .Values.statefulSet.enabled }}
name: {{ include "gemma4-nim.fullname" . }}
{{- end -}}

{{/* Labels of the server's pods in PromQL. Those of a StatefulSet end in their number, those of a Deployment in two hashes. */}}
{{- define "gemma4-nim.podMatchers" -}}
namespace="{{ .Release.Namespace }}", pod=~"{{ include "gemma4-nim.fullname" . }}-{{ ternary "[0-9]+" "[a-z0-9]+-[a-z0-9]+" .Values.statefulSet.enabled }}"
{{- end -}}

{{/* "true" where the number of replicas is not the chart's to say. */}}
{{- define "gemma4-nim.isScaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled }}true{{ end -}}
{{- end -}}

{{/* The most replicas that there may be. */}}
{{- define "gemma4-nim.mostReplicas" -}}
{{- if .Values.autoscaling.enabled -}}
{{- .Values.autoscaling.maxReplicas | int -}}
{{- else if .Values.keda.enabled -}}
{{- .Values.keda.maxReplicaCount | int -}}
{{- else -}}
{{- .Values.replicaCount | int -}}
{{- end -}}
{{- end -}}
