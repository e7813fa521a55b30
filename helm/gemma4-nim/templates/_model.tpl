{{/* What is served, how it gets into the store, and the times that follow from its size. */}}

{{/* A size as 52Gi or 500M in megabytes, rounded up. */}}
{{- define "gemma4-nim.megabytes" -}}
{{- $text := . | toString -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text | float64 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $bytes := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- divf (mulf $number (get $bytes $unit)) 1e6 | ceil | int64 -}}
{{- end -}}

{{/* The model's size in megabytes: as said, or the largest that variant, precision and the profile's name allow. */}}
{{- define "gemma4-nim.modelMegabytes" -}}
{{- if .Values.model.size -}}
{{- include "gemma4-nim.megabytes" .Values.model.size -}}
{{- else -}}
{{- $known := list (.Values.model.variant | default (regexFind "26b-a4b|31b" .Values.model.profile)) (.Values.model.precision | default (regexFind "bf16|nvfp4|fp8|q8_0|q4_k_m" .Values.model.profile)) -}}
{{- $largest := 0 -}}
{{- range $variant, $precisions := .Files.Get "files/model-sizes.yaml" | fromYaml -}}
{{- range $precision, $megabytes := $precisions -}}
{{- if and (has (first $known) (list "" $variant)) (has (last $known) (list "" $precision)) -}}
{{- $largest = max $largest (int64 $megabytes) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $largest -}}
{{- end -}}
{{- end -}}

{{/* Exit codes of the server and of the download that come again until something is changed. */}}
{{- define "gemma4-nim.finalExitCodes" -}}
[64, 65, 66, 68, 69, 70, 73, 74, 77, 78]
{{- end -}}

{{/* "true" where the server must not write to the store. */}}
{{- define "gemma4-nim.isReadOnly" -}}
{{- if or (and .Values.persistence.enabled .Values.persistence.readOnly) (and .Values.nfs.enabled .Values.nfs.readOnly) }}true{{ end -}}
{{- end -}}

{{/* The mode of download with "auto" decided. */}}
{{- define "gemma4-nim.downloadMode" -}}
{{- if ne .Values.download.mode "auto" -}}
{{- .Values.download.mode -}}
{{- else if or .Values.model.offline .Values.engines.enabled (include "gemma4-nim.isReadOnly" .) -}}
none
{{- else -}}
server
{{- end -}}
{{- end -}}

{{/* Seconds that the download may take. */}}
{{- define "gemma4-nim.downloadSeconds" -}}
{{- $megabytes := include "gemma4-nim.modelMegabytes" . | float64 -}}
{{- divf $megabytes (float64 .Values.download.megabytesPerSecond) | ceil | int64 -}}
{{- end -}}

{{/* Tries of the startup probe: time to read the model, two minutes, and the download where the server does it. */}}
{{- define "gemma4-nim.startupTries" -}}
{{- if .Values.startupProbe.failureThreshold -}}
{{- .Values.startupProbe.failureThreshold | int64 -}}
{{- else -}}
{{- $megabytes := include "gemma4-nim.modelMegabytes" . | float64 -}}
{{- $seconds := addf 120 (divf $megabytes (float64 .Values.startupProbe.readMegabytesPerSecond)) -}}
{{- if eq (include "gemma4-nim.downloadMode" .) "server" -}}
{{- $seconds = addf $seconds (include "gemma4-nim.downloadSeconds" . | float64) -}}
{{- end -}}
{{- $tries := divf (subf $seconds (float64 .Values.startupProbe.initialDelaySeconds)) (float64 .Values.startupProbe.periodSeconds) -}}
{{- max 180 ($tries | ceil | int64) -}}
{{- end -}}
{{- end -}}

{{/* Seconds that a start may take before the kubelet ends it. */}}
{{- define "gemma4-nim.startupSeconds" -}}
{{- $tries := include "gemma4-nim.startupTries" . | int64 -}}
{{- add (int64 .Values.startupProbe.initialDelaySeconds) (mul $tries (int64 .Values.startupProbe.periodSeconds)) -}}
{{- end -}}

{{/* Seconds after which job and hook give up. */}}
{{- define "gemma4-nim.deadlineSeconds" -}}
{{- .Values.download.deadlineSeconds | default (include "gemma4-nim.downloadSeconds" . | int64 | mul 2 | max 3600) | int64 -}}
{{- end -}}

{{/* Seconds that a rollout may stand still: a download before the start, the start, and ten minutes. */}}
{{- define "gemma4-nim.progressSeconds" -}}
{{- $download := ternary (include "gemma4-nim.deadlineSeconds" . | int64) 0 (has (include "gemma4-nim.downloadMode" .) (list "initContainer" "job")) -}}
{{- add $download (include "gemma4-nim.startupSeconds" . | int64) 600 | max 3600 -}}
{{- end -}}

{{/* Seconds from the end's announcement to SIGKILL. */}}
{{- define "gemma4-nim.graceSeconds" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add (int64 .Values.preStopSeconds) (int64 .Values.drainSeconds) 15 -}}
{{- else -}}
{{- int64 .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/* The command that brings the model into the store. */}}
{{- define "gemma4-nim.downloadCommand" -}}
- download-to-cache
{{- if .Values.model.uri }}
- --model-uri
- {{ .Values.model.uri | quote }}
{{- else if .Values.model.profile }}
- --profiles
- {{ .Values.model.profile | quote }}
{{- end }}
{{- end -}}
