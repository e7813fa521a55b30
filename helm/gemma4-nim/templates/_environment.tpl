{{/* Environment variables. Later sources win, and no name comes twice: server-side apply refuses such a list. */}}

{{/* A value of "settings" as text. */}}
{{- define "gemma4-nim.text" -}}
{{- if kindIs "bool" . -}}
{{- ternary "1" "0" . -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* What the chart's values say about the model, as name: text. */}}
{{- define "gemma4-nim.modelVariables" -}}
{{- $model := .Values.model -}}
{{- $tags := list -}}
{{- range $name, $value := $model.tags -}}
{{- $tags = append $tags (printf "%s=%s" $name (include "gemma4-nim.text" $value)) -}}
{{- end -}}
{{- $variables := dict
  "NIM_CACHE_PATH" $model.nimCache
  "NIM_JSONL_LOGGING" (ternary "1" "0" $model.jsonLogging)
  "NIM_LOG_LEVEL" $model.logLevel
  "NIM_MODEL_VARIANT" $model.variant
  "NIM_MODEL_PRECISION" $model.precision
  "NIM_MODEL_PROFILE" $model.profile
  "NIM_TAGS_SELECTOR" (join "," $tags)
  "NIM_MODEL_PATH" $model.uri
  "NIM_REPOSITORY_OVERRIDE" $model.mirror
  "NIM_STRICT_CONFIG" (ternary "1" "" .Values.strictConfig)
-}}
{{- range $name, $value := $variables -}}
{{- if $value }}
{{ $name }}: {{ $value | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What only the server wants, as name: text. */}}
{{- define "gemma4-nim.serverVariables" -}}
NIM_SERVER_PORT: {{ include "gemma4-nim.serverPort" . | quote }}
NIM_SHUTDOWN_GRACE_SECONDS: {{ include "gemma4-nim.text" .Values.drainSeconds | quote }}
{{- if .Values.startupProbe.enabled }}
# A little less than the startup probe, so that the server itself says why it gives up.
NIM_START_TIMEOUT_SECONDS: {{ sub (include "gemma4-nim.startupSeconds" . | int64) 10 | min 86400 | quote }}
{{- end }}
{{- with .Values.model.servedNames }}
NIM_SERVED_MODEL_NAME: {{ join "," . | quote }}
{{- end }}
{{- if not (kindIs "invalid" .Values.model.maxLength) }}
NIM_MAX_MODEL_LEN: {{ include "gemma4-nim.text" .Values.model.maxLength | quote }}
{{- end }}
{{- end -}}

{{/* Keys of the sources, as entries of a list; each may be missing. */}}
{{- define "gemma4-nim.secretVariables" -}}
{{- $fullname := include "gemma4-nim.fullname" . -}}
{{- $ngc := ternary (printf "%s-keys" $fullname) .Values.model.ngcAPISecret (ne .Values.model.ngcAPIKey "") -}}
{{- $hf := ternary (printf "%s-keys" $fullname) .Values.model.hfTokenSecret (ne .Values.model.hfToken "") -}}
{{- $sources := list (list "NGC_API_KEY" $ngc) (list "HF_TOKEN" $hf) -}}
{{- if .Values.model.s3Secret -}}
{{- $sources = concat $sources (list (list "AWS_ACCESS_KEY_ID" .Values.model.s3Secret) (list "AWS_SECRET_ACCESS_KEY" .Values.model.s3Secret)) -}}
{{- end -}}
{{- range $sources -}}
{{- if last . }}
- name: {{ first . }}
  valueFrom:
    secretKeyRef:
      name: {{ last . }}
      key: {{ first . }}
      optional: true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* "true" where this role opens connections for models: "server", "download", or "wait", which only looks. */}}
{{- define "gemma4-nim.isOnline" -}}
{{- $mode := include "gemma4-nim.downloadMode" .root -}}
{{- if and (not .root.Values.model.offline) (or (eq .role "download") (and (eq .role "server") (eq $mode "server"))) }}true{{ end -}}
{{- end -}}

{{/* env of a container: dict "root" . "role" "server" | "download" | "wait". */}}
{{- define "gemma4-nim.env" -}}
{{- $values := .root.Values -}}
{{- $texts := include "gemma4-nim.modelVariables" .root | fromYaml -}}
{{- if eq .role "server" -}}
{{- $texts = merge (include "gemma4-nim.serverVariables" .root | fromYaml) (include "gemma4-nim.accessVariables" .root | fromYaml) (include "gemma4-nim.engineVariables" .root | fromYaml) (include "gemma4-nim.adapterVariables" .root | fromYaml) $texts -}}
{{- end -}}
{{- range $name, $value := $values.settings -}}
{{- $_ := set $texts $name (include "gemma4-nim.text" $value) -}}
{{- end -}}
{{- $entries := list -}}
{{- if include "gemma4-nim.isOnline" . -}}
{{- $entries = include "gemma4-nim.secretVariables" .root | fromYamlArray -}}
{{- else -}}
{{- $_ := set $texts "NIM_OFFLINE" "1" -}}
{{- end -}}
{{- if eq .role "server" -}}
{{- $entries = concat $entries (include "gemma4-nim.accessEntries" .root | fromYamlArray) -}}
{{- end -}}
{{- range $name := keys $texts | sortAlpha -}}
{{- $entries = append $entries (dict "name" $name "value" (get $texts $name)) -}}
{{- end -}}
{{- $taken := list -}}
{{- range $values.env -}}
{{- $taken = append $taken .name -}}
{{- end -}}
{{- $result := list -}}
{{- range $entries -}}
{{- if not (has .name $taken) -}}
{{- $result = append $result . -}}
{{- end -}}
{{- end -}}
env:
  {{- concat $result ($values.env | default list) | toYaml | nindent 2 }}
{{- with $values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
