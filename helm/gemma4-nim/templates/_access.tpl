{{/* Who may use the server: its keys and certificates, and those that helm test and Prometheus show. */}}

{{/* "true" where the chart's values bring keys, so that requests need one. */}}
{{- define "gemma4-nim.wantsKey" -}}
{{- with .Values.apiKeys }}
{{- if or .keys .hashesSecret .secret }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* Secret and entry of the key that helm test and Prometheus send, as a selector; empty where they have none. */}}
{{- define "gemma4-nim.clientKey" -}}
{{- with .Values.apiKeys.client }}
{{- if .name }}
name: {{ include "gemma4-nim.fullname" $ }}-client-key
key: NIM_API_KEY
{{- else if .secret }}
name: {{ .secret | quote }}
key: {{ .entry | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* "tls", "mtls", or nothing: as the chart's values or the server's settings say. */}}
{{- define "gemma4-nim.tlsMode" -}}
{{- if .Values.tls.secret -}}
{{- ternary "mtls" "tls" (ne .Values.tls.clientAuthoritySecret "") -}}
{{- else -}}
{{- $mode := lower (include "gemma4-nim.text" (get .Values.settings "NIM_SSL_MODE")) -}}
{{- if has $mode (list "tls" "mtls") -}}{{- $mode -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Settings of the server, as name: text. */}}
{{- define "gemma4-nim.accessVariables" -}}
{{- if or .Values.apiKeys.keys .Values.apiKeys.hashesSecret }}
NIM_API_KEY_HASHES_PATH: /etc/gemma4-nim/keys/{{ ternary "keys.txt" .Values.apiKeys.hashesFile (not (empty .Values.apiKeys.keys)) }}
{{- end }}
{{- if .Values.metrics.public }}
NIM_METRICS_PUBLIC: "1"
{{- end }}
{{- with .Values.tls }}
{{- if .secret }}
NIM_SSL_MODE: {{ include "gemma4-nim.tlsMode" $ }}
NIM_SSL_CERTS_PATH: /etc/gemma4-nim/tls/tls.crt
NIM_SSL_KEY_PATH: /etc/gemma4-nim/tls/tls.key
{{- if .clientAuthoritySecret }}
NIM_SSL_CA_CERTS_PATH: /etc/gemma4-nim/client-authority/ca.crt
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The server's keys that come as a variable, as entries of a list. The secret has to exist: without it all is open. */}}
{{- define "gemma4-nim.accessEntries" -}}
{{- with .Values.apiKeys.secret }}
- name: NIM_API_KEYS
  valueFrom:
    secretKeyRef:
      name: {{ . | quote }}
      key: NIM_API_KEYS
{{- end }}
{{- end -}}

{{/* Secrets that the server mounts, as name of the volume: name of the secret. The folder has the volume's name. */}}
{{- define "gemma4-nim.accessSecrets" -}}
{{- if .Values.apiKeys.keys }}
keys: {{ include "gemma4-nim.fullname" . }}-api-keys
{{- else if .Values.apiKeys.hashesSecret }}
keys: {{ .Values.apiKeys.hashesSecret | quote }}
{{- end }}
{{- if .Values.tls.secret }}
tls: {{ .Values.tls.secret | quote }}
{{- with .Values.tls.clientAuthoritySecret }}
client-authority: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* As folders, because only these follow a change of the secret. */}}
{{- define "gemma4-nim.accessVolumes" -}}
{{- range $name, $secret := include "gemma4-nim.accessSecrets" . | fromYaml }}
- name: {{ $name }}
  secret:
    secretName: {{ $secret | quote }}
{{- end }}
{{- range $name, $source := include "gemma4-nim.engineClientSecrets" . | fromYaml }}
- name: {{ $name }}
  secret:
    {{- toYaml $source | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "gemma4-nim.accessMounts" -}}
{{- range $name, $_ := merge (include "gemma4-nim.accessSecrets" . | fromYaml) (include "gemma4-nim.engineClientSecrets" . | fromYaml) }}
- name: {{ $name }}
  mountPath: /etc/gemma4-nim/{{ $name }}
  readOnly: true
{{- end }}
{{- end -}}

{{/* How Prometheus gets in, as fields of a ServiceMonitor's endpoint. */}}
{{- define "gemma4-nim.scrapeAccess" -}}
{{- $key := include "gemma4-nim.clientKey" . | fromYaml -}}
{{- if and $key (not .Values.metrics.public) }}
authorization:
  credentials:
    {{- toYaml $key | nindent 4 }}
{{- end }}
{{- if include "gemma4-nim.tlsMode" . }}
scheme: https
tlsConfig:
{{- with .Values.metrics.serviceMonitor.tlsConfig }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  {{- with .Values.tls }}
  {{- if .authoritySecret }}
  ca:
    secret: {name: {{ .authoritySecret | quote }}, key: ca.crt}
  serverName: {{ include "gemma4-nim.serviceHost" $ }}
  {{- else }}
  insecureSkipVerify: true
  {{- end }}
  {{- if .clientSecret }}
  cert:
    secret: {name: {{ .clientSecret | quote }}, key: tls.crt}
  keySecret: {name: {{ .clientSecret | quote }}, key: tls.key}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the pods of helm test need to get in: lists of variables, mounts and volumes. Those of tests.env win. */}}
{{- define "gemma4-nim.testAccess" -}}
{{- $own := list -}}
{{- $folders := dict -}}
{{- with include "gemma4-nim.clientKey" . | fromYaml -}}
{{- $own = append $own (dict "name" "NIM_API_KEY" "valueFrom" (dict "secretKeyRef" .)) -}}
{{- end -}}
{{- with .Values.tls.authoritySecret -}}
{{- $own = append $own (dict "name" "SSL_CERT_FILE" "value" "/authority/ca.crt") -}}
{{- $_ := set $folders "authority" . -}}
{{- end -}}
{{- with .Values.tls.clientSecret -}}
{{- $own = append $own (dict "name" "CLIENT_CERTIFICATE" "value" "/client-certificate") -}}
{{- $_ := set $folders "client-certificate" . -}}
{{- end -}}
{{- $env := list -}}
{{- range $own -}}
{{- if not (include "gemma4-nim.testHas" (dict "root" $ "name" .name)) -}}
{{- $env = append $env . -}}
{{- end -}}
{{- end -}}
{{- $mounts := list (dict "name" "test" "mountPath" "/test" "readOnly" true) -}}
{{- $volumes := list (dict "name" "test" "configMap" (dict "name" (printf "%s-test" (include "gemma4-nim.fullname" .)))) -}}
{{- range $name, $secret := $folders -}}
{{- $mounts = append $mounts (dict "name" $name "mountPath" (printf "/%s" $name) "readOnly" true) -}}
{{- $volumes = append $volumes (dict "name" $name "secret" (dict "secretName" $secret)) -}}
{{- end -}}
{{- dict "env" (concat $env .Values.tests.env) "mounts" $mounts "volumes" $volumes | toYaml -}}
{{- end -}}

{{/* "true" where tests.env has a variable: dict "root" . "name" NAME. */}}
{{- define "gemma4-nim.testHas" -}}
{{- $name := .name -}}
{{- range .root.Values.tests.env }}{{ if eq .name $name }}true{{ end }}{{ end -}}
{{- end -}}

{{/* Values of this page that contradict each other. */}}
{{- define "gemma4-nim.accessContradictions" -}}
{{- $v := .Values -}}
{{- $keys := $v.apiKeys -}}
{{- if and $keys.keys $keys.hashesSecret }}
- apiKeys.keys and apiKeys.hashesSecret: set one or the other.
{{- end }}
{{- range $name, $key := $keys.keys }}
{{- if not (regexMatch "^[A-Za-z0-9_.:@-]{1,64}$" $name) }}
- apiKeys.keys: {{ $name }} is no name; write letters, digits and _.:@-
{{- end }}
{{- end }}
{{- if and $keys.client.name (not (hasKey $keys.keys $keys.client.name)) }}
- apiKeys.client.name {{ $keys.client.name }}: there is no key of that name in apiKeys.keys.
{{- end }}
{{- if and $keys.client.name $keys.client.secret }}
- apiKeys.client.name and apiKeys.client.secret: set one or the other.
{{- end }}
{{- $locked := and (include "gemma4-nim.wantsKey" .) (not (include "gemma4-nim.clientKey" .)) -}}
{{- if and $locked $v.tests.enabled (not (include "gemma4-nim.testHas" (dict "root" . "name" "NIM_API_KEY"))) }}
- apiKeys: the pods of helm test need a key; name it in apiKeys.client, or set tests.enabled: false.
{{- end }}
{{- if and $locked $v.metrics.serviceMonitor.enabled (not $v.metrics.public) }}
- metrics.serviceMonitor: Prometheus needs a key; name it in apiKeys.client, or set metrics.public: true.
{{- end }}
{{- range $name := list "NIM_API_KEYS" "NIM_API_KEY" }}
{{- if hasKey $v.settings $name }}
- settings.{{ $name }}: a key does not belong into the specification of a pod; use apiKeys.
{{- end }}
{{- end }}
{{- if and (or $keys.keys $keys.hashesSecret) (hasKey $v.settings "NIM_API_KEY_HASHES_PATH") }}
- settings.NIM_API_KEY_HASHES_PATH: apiKeys sets it; set one or the other.
{{- end }}
{{- if hasKey $v.settings "NIM_METRICS_PUBLIC" }}
- settings.NIM_METRICS_PUBLIC: other parts of the chart depend on it; set metrics.public instead.
{{- end }}
{{- if $v.tls.secret }}
{{- range $name := list "NIM_SSL_MODE" "NIM_SSL_CERTS_PATH" "NIM_SSL_KEY_PATH" "NIM_SSL_CA_CERTS_PATH" }}
{{- if hasKey $v.settings $name }}
- settings.{{ $name }}: tls.secret sets it; set one or the other.
{{- end }}
{{- end }}
{{- end }}
{{- if and $v.tls.clientAuthoritySecret (not $v.tls.secret) }}
- tls.clientAuthoritySecret: the server has no certificate of its own; name it in tls.secret.
{{- end }}
{{- if and (or $v.tls.clientSecret $v.tls.authoritySecret) (not (include "gemma4-nim.tlsMode" .)) }}
- tls.clientSecret and tls.authoritySecret: connections are not encrypted; name the server's certificate in tls.secret.
{{- end }}
{{- if and (eq (include "gemma4-nim.tlsMode" .) "mtls") (not $v.tls.clientSecret) }}
{{- if and $v.tests.enabled $v.tls.secret }}
- tls.clientAuthoritySecret: the pods of helm test need a certificate; name it in tls.clientSecret, or set tests.enabled: false.
{{- end }}
{{- if and $v.metrics.serviceMonitor.enabled (not $v.metrics.serviceMonitor.tlsConfig) }}
- metrics.serviceMonitor: Prometheus needs a certificate; name it in tls.clientSecret.
{{- end }}
{{- end }}
{{- end -}}
