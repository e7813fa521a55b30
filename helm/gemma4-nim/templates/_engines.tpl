{{/* Engines in pods of their own, and what the API has to know of them. */}}

{{/* A StatefulSet's pods carry its name and a hash in a label of 63 characters. The controller of LeaderWorkerSets makes
     StatefulSets, too, with longer names, which must not be taken for those of the other kind after an upgrade. */}}
{{- define "gemma4-nim.engineName" -}}
{{- if gt (int .Values.engines.nodes) 1 -}}
{{- include "gemma4-nim.fullname" . | trunc 38 | trimSuffix "-" -}}-engines
{{- else -}}
{{- include "gemma4-nim.fullname" . | trunc 43 | trimSuffix "-" -}}-engine
{{- end -}}
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
{{- with .Values.engines.tls }}
{{- if .secret }}
NIM_ENGINE_TLS_CA: /etc/gemma4-nim/engine-authority/ca.crt
{{- if .clientSecret }}
NIM_ENGINE_TLS_CERT: /etc/gemma4-nim/engine-client/tls.crt
NIM_ENGINE_TLS_KEY: /etc/gemma4-nim/engine-client/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Secrets that the API mounts for its engines, as name of the folder: source of the volume. Their keys are not its own. */}}
{{- define "gemma4-nim.engineClientSecrets" -}}
{{- with .Values.engines -}}
{{- if and .enabled .tls.secret }}
engine-authority: {secretName: {{ .tls.authoritySecret | default .tls.secret | quote }}, items: [{key: ca.crt, path: ca.crt}]}
{{- with .tls.clientSecret }}
engine-client: {secretName: {{ . | quote }}}
{{- end }}
{{- end }}
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
{{- range $name := list "NIM_ENGINE_TLS" "NIM_ENGINE_TLS_CA" "NIM_ENGINE_TLS_CERT" "NIM_ENGINE_TLS_KEY" }}
{{- if and $e.tls.secret (hasKey $v.settings $name) }}
- settings.{{ $name }}: engines.tls sets it; set one or the other.
{{- end }}
{{- end }}
{{- if and (or $e.tls.clientSecret $e.tls.authoritySecret) (not $e.tls.secret) }}
- engines.tls.clientSecret and authoritySecret: the engines have no certificate; name it in engines.tls.secret.
{{- end }}
{{- if gt (int $e.nodes) 1 }}
{{- if or (ne $e.server "plain") (ne ($e.runtime.core | default "llama_cpp") "vllm") }}
- engines.nodes {{ $e.nodes }}: only vLLM in our own server runs over several nodes; set engines.server: plain and engines.runtime.core: vllm.
{{- end }}
{{- if ne (mod (int64 ($e.runtime.tensor_parallel | default 1)) (int64 $e.nodes) | int) 0 }}
- engines.nodes {{ $e.nodes }}: engines.runtime.tensor_parallel is the number of GPUs on all nodes together; set a multiple of {{ $e.nodes }}.
{{- end }}
{{- if not (regexMatch "^[a-z]" (include "gemma4-nim.fullname" .)) }}
- engines.nodes {{ $e.nodes }}: the name of a LeaderWorkerSet begins with a letter; set fullnameOverride.
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
