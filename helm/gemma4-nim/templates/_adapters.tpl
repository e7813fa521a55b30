{{/* LoRA adapters: where they lie, and who mounts them. In split mode the engines do, otherwise the server. */}}

{{- define "gemma4-nim.adapterVolume" -}}
{{- with .Values.adapters -}}
{{- if .enabled -}}
- name: adapters
{{- if .existingClaim }}
  persistentVolumeClaim:
    claimName: {{ .existingClaim | quote }}
    readOnly: true
{{- else if .hostPath }}
  hostPath:
    path: {{ .hostPath | quote }}
    type: Directory
{{- else }}
  nfs:
    server: {{ .nfs.server | quote }}
    path: {{ .nfs.path | quote }}
    readOnly: true
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gemma4-nim.adapterMount" -}}
{{- with .Values.adapters -}}
{{- if .enabled -}}
- name: adapters
  mountPath: /adapters
  {{- if .subPath }}
  subPath: {{ .subPath | quote }}
  {{- end }}
  readOnly: true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Settings of a server that runs its engine itself, as name: text. */}}
{{- define "gemma4-nim.adapterVariables" -}}
{{- if and .Values.adapters.enabled (not .Values.engines.enabled) -}}
{{- with .Values.adapters -}}
NIM_PEFT_SOURCE: /adapters
NIM_PEFT_REFRESH_INTERVAL: {{ include "gemma4-nim.text" .refreshSeconds | quote }}
NIM_MAX_LORA_RANK: {{ .maxRank | quote }}
NIM_MAX_GPU_LORAS: {{ .maxOnGpu | quote }}
NIM_MAX_CPU_LORAS: {{ .maxInMemory | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The same for an engine in a pod of its own. */}}
{{- define "gemma4-nim.engineAdapters" -}}
source: /adapters
refresh_s: {{ .Values.adapters.refreshSeconds }}
max_rank: {{ .Values.adapters.maxRank }}
max_gpu: {{ .Values.adapters.maxOnGpu }}
max_cpu: {{ .Values.adapters.maxInMemory }}
reserved_names: {{ .Values.model.servedNames | toJson }}
{{- end -}}

{{- define "gemma4-nim.adapterContradictions" -}}
{{- $a := .Values.adapters -}}
{{- if $a.enabled }}
{{- $places := list -}}
{{- if $a.existingClaim }}{{- $places = append $places "existingClaim" -}}{{- end -}}
{{- if $a.hostPath }}{{- $places = append $places "hostPath" -}}{{- end -}}
{{- if $a.nfs.server }}{{- $places = append $places "nfs" -}}{{- end -}}
{{- if ne (len $places) 1 }}
- adapters: name one place where they lie: existingClaim, hostPath or nfs{{ with $places }}, not {{ join " and " . }}{{ end }}.
{{- end }}
{{- range $name := list "NIM_PEFT_SOURCE" "NIM_PEFT_REFRESH_INTERVAL" "NIM_MAX_LORA_RANK" "NIM_MAX_GPU_LORAS" "NIM_MAX_CPU_LORAS" }}
{{- if hasKey $.Values.settings $name }}
- settings.{{ $name }}: adapters sets it; set one or the other.
{{- end }}
{{- end }}
{{- if and .Values.engines.enabled (ne (.Values.engines.runtime.core | default "llama_cpp") "vllm") }}
- adapters: of the engines only vLLM serves them; set engines.runtime.core: vllm.
{{- end }}
{{- if and .Values.engines.enabled (gt (int .Values.engines.nodes) 1) }}
- adapters: an engine over several nodes serves none; set engines.nodes: 1.
{{- end }}
{{- if and .Values.engines.enabled .Values.engines.runtime.adapters }}
- engines.runtime.adapters: adapters sets it; set one or the other.
{{- end }}
{{- end }}
{{- end -}}
