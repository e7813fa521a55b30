{{/* The pods of the server. */}}

{{/* What all pods of the chart share: who they run as, without a token of the cluster. */}}
{{- define "gemma4-nim.podSecurity" -}}
automountServiceAccountToken: {{ .Values.serviceAccount.automountToken }}
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with include "gemma4-nim.pullSecrets" . }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Probe without its handler. */}}
{{- define "gemma4-nim.probeTimes" -}}
initialDelaySeconds: {{ .initialDelaySeconds }}
timeoutSeconds: {{ .timeoutSeconds }}
periodSeconds: {{ .periodSeconds }}
successThreshold: {{ .successThreshold }}
{{- end -}}

{{- define "gemma4-nim.probes" -}}
{{- with .Values.startupProbe }}
{{- if .enabled }}
startupProbe:
  httpGet:
    path: {{ .path | quote }}
    port: http-openai
    {{- if include "gemma4-nim.tlsMode" $ }}
    scheme: HTTPS
    {{- end }}
  {{- include "gemma4-nim.probeTimes" . | nindent 2 }}
  failureThreshold: {{ include "gemma4-nim.startupTries" $ }}
{{- end }}
{{- end }}
{{- with .Values.livenessProbe }}
{{- if .enabled }}
livenessProbe:
  {{- if eq .method "script" }}
  exec:
    command:
      {{- toYaml .command | nindent 6 }}
  {{- else }}
  httpGet:
    path: {{ .path | quote }}
    port: http-openai
    {{- if include "gemma4-nim.tlsMode" $ }}
    scheme: HTTPS
    {{- end }}
  {{- end }}
  {{- include "gemma4-nim.probeTimes" . | nindent 2 }}
  failureThreshold: {{ .failureThreshold }}
{{- end }}
{{- end }}
{{- with .Values.readinessProbe }}
{{- if .enabled }}
readinessProbe:
  httpGet:
    path: {{ .path | quote }}
    port: http-openai
    {{- if include "gemma4-nim.tlsMode" $ }}
    scheme: HTTPS
    {{- end }}
  {{- include "gemma4-nim.probeTimes" . | nindent 2 }}
  failureThreshold: {{ .failureThreshold }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Resources of the server; with dynamic resource allocation a claim instead of device plugins' GPUs. */}}
{{- define "gemma4-nim.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.dynamicResources.enabled -}}
{{- range $kind := list "limits" "requests" -}}
{{- $amounts := dict -}}
{{- range $name, $amount := get $resources $kind | default dict -}}
{{- if not (hasPrefix "nvidia.com/" $name) -}}
{{- $_ := set $amounts $name $amount -}}
{{- end -}}
{{- end -}}
{{- if $amounts -}}
{{- $_ := set $resources $kind $amounts -}}
{{- else -}}
{{- $_ := unset $resources $kind -}}
{{- end -}}
{{- end -}}
{{- $_ := set $resources "claims" (append ($resources.claims | default list) (dict "name" "gpu")) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* A container of the chart that brings or awaits the model: dict "root" . "role" "download" | "wait" "resources" MAP. */}}
{{- define "gemma4-nim.downloadContainer" -}}
name: {{ .role }}-model
image: {{ include "gemma4-nim.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command:
  {{- include "gemma4-nim.downloadCommand" .root | nindent 2 }}
securityContext:
  {{- toYaml .root.Values.containerSecurityContext | nindent 2 }}
{{ include "gemma4-nim.env" (dict "root" .root "role" .role) }}
{{- with .resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  {{- include "gemma4-nim.mounts" (dict "root" .root "writes" (eq .role "download")) | nindent 2 }}
{{- end -}}

{{- define "gemma4-nim.initContainers" -}}
{{- $mode := include "gemma4-nim.downloadMode" . -}}
{{- range .Values.initContainers.extraInit }}
- {{ toYaml . | nindent 2 | trim }}
{{- end }}
{{- if eq $mode "initContainer" }}
{{/* With the server's GPUs, which costs nothing as one runs after the other, it finds the profile that fits. */ -}}
- {{ include "gemma4-nim.downloadContainer" (dict "root" . "role" "download" "resources" (include "gemma4-nim.resources" . | fromYaml)) | nindent 2 | trim }}
{{- else if eq $mode "job" }}
- {{ include "gemma4-nim.downloadContainer" (dict "root" . "role" "wait" "resources" .Values.download.resources) | nindent 2 | trim }}
{{- end }}
{{- end -}}

{{- define "gemma4-nim.serverContainer" -}}
name: server
image: {{ include "gemma4-nim.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.customCommand }}
command:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.customArgs }}
args:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
{{ include "gemma4-nim.env" (dict "root" . "role" "server") }}
ports:
  - name: http-openai
    containerPort: {{ include "gemma4-nim.serverPort" . }}
    protocol: TCP
{{- include "gemma4-nim.probes" . }}
{{- if .Values.lifecycle }}
lifecycle:
  {{- toYaml .Values.lifecycle | nindent 2 }}
{{- else if gt (int .Values.preStopSeconds) 0 }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.preStopSeconds }}
{{- end }}
resources:
  {{- include "gemma4-nim.resources" . | nindent 2 }}
volumeMounts:
  {{- include "gemma4-nim.mounts" (dict "root" . "writes" false) | nindent 2 }}
  - name: dshm
    mountPath: /dev/shm
  {{- with include "gemma4-nim.accessMounts" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if not .Values.engines.enabled }}
  {{- with include "gemma4-nim.adapterMount" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- end }}
  {{- range $name, $mount := .Values.extraVolumeMounts }}
  - {{ merge (dict "name" $name) $mount | toYaml | nindent 4 | trim }}
  {{- end }}
{{- end -}}

{{- define "gemma4-nim.volumes" -}}
{{- include "gemma4-nim.storeVolume" . }}
{{ include "gemma4-nim.scratchVolume" . }}
- name: dshm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.sharedMemory.sizeLimit | quote }}
{{- include "gemma4-nim.accessVolumes" . }}
{{- if not .Values.engines.enabled }}
{{ include "gemma4-nim.adapterVolume" . }}
{{- end }}
{{- range $name, $volume := .Values.extraVolumes }}
- {{ merge (dict "name" $name) $volume | toYaml | nindent 2 | trim }}
{{- end }}
{{- end -}}

{{- define "gemma4-nim.scheduling" -}}
{{- range $name := list "priorityClassName" "runtimeClassName" "schedulerName" "dnsPolicy" "dnsConfig" "hostAliases" "nodeSelector" "affinity" "tolerations" }}
{{- with get $.Values $name }}
{{ $name }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- $selector := dict "matchLabels" (include "gemma4-nim.selectorLabels" $ | fromYaml) }}
  {{- range . }}
  - {{ set (deepCopy .) "labelSelector" (.labelSelector | default $selector) | toYaml | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "gemma4-nim.podTemplate" -}}
{{- $annotations := deepCopy .Values.podAnnotations -}}
{{- if or .Values.model.ngcAPIKey .Values.model.hfToken -}}
{{/* A new key has to reach the pods. */}}
{{- $_ := set $annotations "checksum/keys" (printf "%s/%s" .Values.model.ngcAPIKey .Values.model.hfToken | sha256sum) -}}
{{- end -}}
metadata:
  labels:
    {{- $labels := dict "root" . "component" "server" | include "gemma4-nim.labels" | fromYaml }}
    {{- omit (merge $labels .Values.model.labels) "helm.sh/chart" "app.kubernetes.io/managed-by" | toYaml | nindent 4 }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "gemma4-nim.serviceAccountName" . }}
  {{- include "gemma4-nim.podSecurity" . | nindent 2 }}
  terminationGracePeriodSeconds: {{ include "gemma4-nim.graceSeconds" . }}
  {{- with include "gemma4-nim.scheduling" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if .Values.dynamicResources.enabled }}
  resourceClaims:
    - name: gpu
      resourceClaimTemplateName: {{ include "gemma4-nim.claimTemplateName" . }}
  {{- end }}
  {{- with include "gemma4-nim.initContainers" . | trim }}
  initContainers:
    {{- . | nindent 4 }}
  {{- end }}
  containers:
    - {{ include "gemma4-nim.serverContainer" . | nindent 6 | trim }}
    {{- range .Values.extraContainers }}
    - {{ toYaml . | nindent 6 | trim }}
    {{- end }}
  volumes:
    {{- include "gemma4-nim.volumes" . | trim | nindent 4 }}
{{- end -}}

{{- define "gemma4-nim.claimTemplateSpec" -}}
spec:
  devices:
    requests:
      - name: gpu
        exactly:
          deviceClassName: {{ .Values.dynamicResources.deviceClassName }}
          allocationMode: ExactCount
          count: {{ .Values.dynamicResources.count }}
          {{- with .Values.dynamicResources.selectors }}
          selectors:
            {{- range . }}
            - cel:
                expression: {{ . | quote }}
            {{- end }}
          {{- end }}
{{- end -}}

{{/* The spec of such a template can never change, so another spec gets another name. */}}
{{- define "gemma4-nim.claimTemplateName" -}}
{{- if .Values.dynamicResources.existingTemplate -}}
{{- .Values.dynamicResources.existingTemplate -}}
{{- else -}}
{{- printf "%s-gpu-%s" (include "gemma4-nim.fullname" .) (include "gemma4-nim.claimTemplateSpec" . | sha256sum | trunc 8) -}}
{{- end -}}
{{- end -}}
