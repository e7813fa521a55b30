{{/* The pods of engines: alone, or several that share one. */}}

{{/* What an engine loads, as JSON: the values, and what the chart decides. */}}
{{- define "gemma4-nim.engineRuntime" -}}
{{- $own := dict "endpoint" (printf "0.0.0.0:%d" (int .Values.engines.port)) -}}
{{- with .Values.engines.tls -}}
{{- if .secret -}}
{{- $tls := dict "certificate" "/etc/gemma4-nim/engine-tls/tls.crt" "key" "/etc/gemma4-nim/engine-tls/tls.key" -}}
{{- if .clientSecret -}}
{{- $_ := set $tls "client_authorities" "/etc/gemma4-nim/engine-authority/ca.crt" -}}
{{- end -}}
{{- $_ := set $own "tls" $tls -}}
{{- end -}}
{{- end -}}
{{- if .Values.adapters.enabled -}}
{{- $_ := set $own "adapters" (include "gemma4-nim.engineAdapters" . | fromYaml) -}}
{{- end -}}
{{- merge $own .Values.engines.runtime | toPrettyJson -}}
{{- end -}}

{{/* A pod template: dict "root" . "role" "alone" | "leader" | "worker". The workers of a leader serve nobody. */}}
{{- define "gemma4-nim.engineTemplate" -}}
{{- $ := .root -}}
{{- $role := .role -}}
{{- with .root.Values.engines -}}
metadata:
  labels:
    {{- omit (dict "root" $ "component" "engine" | include "gemma4-nim.labels" | fromYaml) "helm.sh/chart" "app.kubernetes.io/managed-by" | toYaml | nindent 4 }}
  annotations:
    {{- /* A new runtime has to reach the engines. */}}
    {{- merge (dict "checksum/runtime" (include "gemma4-nim.engineRuntime" $ | sha256sum)) .podAnnotations | toYaml | nindent 4 }}
spec:
  serviceAccountName: {{ include "gemma4-nim.serviceAccountName" $ }}
  {{- include "gemma4-nim.podSecurity" $ | nindent 2 }}
  {{- range $field := list "nodeSelector" "affinity" "tolerations" }}
  {{- with get $.Values.engines $field }}
  {{ $field }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  containers:
    - name: engine
      image: {{ include "gemma4-nim.image" $ | quote }}
      imagePullPolicy: {{ $.Values.image.pullPolicy }}
      command:
        - python3
        - -m
        - {{ ternary "engine.triton" "engine" (eq .server "triton") }}
        - --runtime
        - /etc/gemma4-nim/engine/runtime.json
        {{- if ne $role "alone" }}
        {{- /* The controller of LeaderWorkerSets sets these variables. */}}
        - --nodes
        - $(LWS_GROUP_SIZE)
        - --node-rank
        - $(LWS_WORKER_INDEX)
        - --leader
        - $(LWS_LEADER_ADDRESS):29500
        {{- end }}
      securityContext:
        {{- toYaml $.Values.containerSecurityContext | nindent 8 }}
      env:
        {{- include "gemma4-nim.engineEnv" (dict "root" $ "role" $role) | nindent 8 }}
      {{- if ne $role "worker" }}
      {{- include "gemma4-nim.enginePort" $ | nindent 6 }}
      {{- end }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      volumeMounts:
        {{- include "gemma4-nim.mounts" (dict "root" $ "writes" false) | nindent 8 }}
        - name: dshm
          mountPath: /dev/shm
        - name: runtime
          mountPath: /etc/gemma4-nim/engine
          readOnly: true
        {{- if ne $role "worker" }}
        {{- range $folder, $_ := include "gemma4-nim.engineSecrets" $ | fromYaml }}
        - name: {{ $folder }}
          mountPath: /etc/gemma4-nim/{{ $folder }}
          readOnly: true
        {{- end }}
        {{- end }}
        {{- with include "gemma4-nim.adapterMount" $ }}
        {{- . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "gemma4-nim.storeVolume" $ | nindent 4 }}
    {{- include "gemma4-nim.scratchVolume" $ | nindent 4 }}
    - name: dshm
      emptyDir:
        medium: Memory
        sizeLimit: {{ $.Values.sharedMemory.sizeLimit | quote }}
    - name: runtime
      configMap:
        name: {{ include "gemma4-nim.engineName" $ }}
    {{- if ne $role "worker" }}
    {{- range $folder, $source := include "gemma4-nim.engineSecrets" $ | fromYaml }}
    - name: {{ $folder }}
      secret:
        {{- toYaml $source | nindent 8 }}
    {{- end }}
    {{- end }}
    {{- with include "gemma4-nim.adapterVolume" $ }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}
{{- end -}}

{{/* Variables of an engine, as entries of a list: dict "root" . "role" WORD. Those of the values win. */}}
{{- define "gemma4-nim.engineEnv" -}}
{{- $model := .root.Values.model -}}
{{- $own := list (dict "name" "NIM_JSONL_LOGGING" "value" (ternary "1" "0" $model.jsonLogging)) (dict "name" "NIM_LOG_LEVEL" "value" $model.logLevel) -}}
{{- if ne .role "alone" -}}
{{/* By which the machines of one engine find each other. */}}
{{- $own = append $own (dict "name" "VLLM_HOST_IP" "valueFrom" (dict "fieldRef" (dict "fieldPath" "status.podIP"))) -}}
{{- end -}}
{{- $given := list -}}
{{- range .root.Values.engines.env -}}{{- $given = append $given .name -}}{{- end -}}
{{- $entries := list -}}
{{- range $own -}}
{{- if not (has .name $given) -}}{{- $entries = append $entries . -}}{{- end -}}
{{- end -}}
{{- concat $entries .root.Values.engines.env | toYaml -}}
{{- end -}}

{{/* Port and probes of an engine that serves. */}}
{{- define "gemma4-nim.enginePort" -}}
ports:
  - name: grpc
    containerPort: {{ .Values.engines.port }}
    protocol: TCP
# Until the model is loaded, so that an update takes the next engine only then. Afterwards a server that stops working
# ends itself.
startupProbe:
  exec:
    command: [python3, -m, engine.ready, --runtime, /etc/gemma4-nim/engine/runtime.json]
  timeoutSeconds: 20
  periodSeconds: {{ .Values.startupProbe.periodSeconds }}
  failureThreshold: {{ include "gemma4-nim.startupTries" . }}
livenessProbe:
  tcpSocket:
    port: grpc
  timeoutSeconds: 5
{{- end -}}

{{/* Secrets that an engine mounts, as name of the folder: source of the volume. */}}
{{- define "gemma4-nim.engineSecrets" -}}
{{- with .Values.engines.tls -}}
{{- if .secret }}
engine-tls: {secretName: {{ .secret | quote }}}
{{- if .clientSecret }}
engine-authority: {secretName: {{ .authoritySecret | default .secret | quote }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}
