{{/* Engines in pods of their own, and what the API has to know of them. */}}

{{/* A StatefulSet's pods carry its name and a hash in a label of 63 characters. */}}
{{- define "gemma4-nim.engineName" -}}
{{- include "gemma4-nim.fullname" . | trunc 43 | trimSuffix "-" -}}-engine
{{- end -}}

{{- define "gemma4-nim.engineLabels" -}}
{{- set (include "gemma4-nim.selectorLabels" . | fromYaml) "app.kubernetes.io/component" "engine" | toYaml -}}
{{- end -}}

{{/* Settings of the API, as name: text. */}}
{{- define "gemma4-nim.engineVariables" -}}
{{- if .Values.engines.enabled -}}
{{- $name := include "gemma4-nim.engineName" . -}}
{{- $endpoints := list -}}
{{- range $number := until (int .Values.engines.replicas) -}}
{{- $endpoints = append $endpoints (printf "%s-%d.%s.%s.svc:%d" $name $number $name $.Release.Namespace (int $.Values.engines.port)) -}}
{{- end -}}
NIM_ENGINE_ENDPOINTS: {{ join "," $endpoints }}
NIM_TOKENIZER_PATH: {{ .Values.engines.runtime.tokenizer_path | quote }}
{{- end -}}
{{- end -}}

{{- define "gemma4-nim.engineContradictions" -}}
{{- $v := .Values -}}
{{- $e := $v.engines -}}
{{- if $e.enabled }}
{{- if not (and $e.runtime.tokenizer_path $e.runtime.context_tokens (or $e.runtime.model_path $e.runtime.checkpoint_path)) }}
- engines.runtime: say what an engine loads: tokenizer_path, context_tokens, and model_path or checkpoint_path.
{{- end }}
{{- if not $v.model.servedNames }}
- engines: name the model in model.servedNames; the API cannot tell its name from a tokenizer.
{{- end }}
{{- if or $v.model.uri $v.model.profile $v.model.variant $v.model.precision $v.model.tags }}
- engines: engines.runtime says what is served, so model.uri, profile, variant, precision and tags have no effect; leave them out.
{{- end }}
{{- if ne (include "gemma4-nim.downloadMode" .) "none" }}
- engines and download.mode {{ $v.download.mode }}: engines read a store that is filled; leave the mode at auto or none.
{{- end }}
{{- if not (or $v.nfs.enabled $v.hostPath.enabled (and $v.persistence.enabled $v.persistence.existingClaim)) }}
- engines: the API and all engines read one filled store; name it in persistence.existingClaim, nfs or hostPath.
{{- end }}
{{- $gpus := or $v.dynamicResources.enabled false -}}
{{- range $name, $amount := $v.resources.limits -}}
{{- if and (hasPrefix "nvidia.com/" $name) $amount (ne (toString $amount) "0") -}}{{- $gpus = true -}}{{- end -}}
{{- end -}}
{{- if $gpus }}
- engines: the API needs no GPU, which it would keep from an engine; set resources.limits "nvidia.com/gpu": null and engines.resources.
{{- end }}
{{- range $name := list "NIM_ENGINE_ENDPOINTS" "NIM_TOKENIZER_PATH" }}
{{- if hasKey $v.settings $name }}
- settings.{{ $name }}: engines.enabled sets it; set one or the other.
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
