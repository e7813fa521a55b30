{{/* The store of models: which volume it is, and who mounts it how. */}}

{{/* "true" where each replica of the StatefulSet gets a claim of its own. */}}
{{- define "gemma4-nim.hasClaimTemplate" -}}
{{- $p := .Values.persistence -}}
{{- if and $p.enabled .Values.statefulSet.enabled (not $p.existingClaim) (not (has $p.accessMode (list "ReadWriteMany" "ReadOnlyMany"))) }}true{{ end -}}
{{- end -}}

{{/* Spec of a claim. */}}
{{- define "gemma4-nim.claimSpec" -}}
accessModes: [{{ .Values.persistence.accessMode }}]
{{- if eq .Values.persistence.storageClass "-" }}
storageClassName: ""
{{- else if .Values.persistence.storageClass }}
storageClassName: {{ .Values.persistence.storageClass | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .Values.persistence.size | quote }}
{{- end -}}

{{/* The volume of the store; none where a claim template makes it. */}}
{{- define "gemma4-nim.storeVolume" -}}
{{- if not (include "gemma4-nim.hasClaimTemplate" .) -}}
- name: model-store
{{- if .Values.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ .Values.persistence.existingClaim | default (include "gemma4-nim.fullname" .) }}
{{- else if .Values.hostPath.enabled }}
  hostPath:
    path: {{ .Values.hostPath.path | quote }}
    type: {{ .Values.hostPath.type }}
{{- else if .Values.nfs.enabled }}
  nfs:
    server: {{ .Values.nfs.server | quote }}
    path: {{ .Values.nfs.path | quote }}
    {{- if and .Values.nfs.readOnly (not (has (include "gemma4-nim.downloadMode" .) (list "job" "hook"))) }}
    readOnly: true
    {{- end }}
{{- else if .Values.emptyDir.sizeLimit }}
  emptyDir:
    sizeLimit: {{ .Values.emptyDir.sizeLimit | quote }}
{{- else }}
  emptyDir: {}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Mounts of every container of the chart: dict "root" . "writes" BOOL. */}}
{{- define "gemma4-nim.mounts" -}}
- name: model-store
  mountPath: {{ .root.Values.model.nimCache | quote }}
  {{- if and .root.Values.persistence.enabled .root.Values.persistence.subPath }}
  subPath: {{ .root.Values.persistence.subPath | quote }}
  {{- end }}
  {{- if and (include "gemma4-nim.isReadOnly" .root) (not .writes) }}
  readOnly: true
  {{- end }}
- name: scratch
  mountPath: /tmp
{{- end -}}

{{- define "gemma4-nim.scratchVolume" -}}
- name: scratch
  emptyDir:
    sizeLimit: {{ .Values.scratch.sizeLimit | quote }}
{{- end -}}
