{{/* Values that contradict each other, and values of nim-llm for which there is nothing here: one message names all. */}}

{{- define "gemma4-nim.contradictions" -}}
{{- $v := .Values -}}
{{- $mode := include "gemma4-nim.downloadMode" . -}}
{{- $replicas := include "gemma4-nim.mostReplicas" . | int -}}
{{- $stores := list -}}
{{- range $name := list "persistence" "hostPath" "nfs" -}}
{{- if (get $v $name).enabled -}}{{- $stores = append $stores $name -}}{{- end -}}
{{- end -}}
{{- if gt (len $stores) 1 }}
- {{ join " and " $stores }}: enable only one of them.
{{- end }}
{{- if and $v.autoscaling.enabled $v.keda.enabled }}
- autoscaling and keda: enable only one of them; KEDA makes an autoscaler itself.
{{- end }}
{{- if and $v.autoscaling.enabled (not $v.autoscaling.metrics) (not $v.autoscaling.targetRunningSequences) (not $v.autoscaling.targetCPUUtilizationPercentage) }}
- autoscaling: say what to scale on, with autoscaling.metrics, autoscaling.targetRunningSequences or autoscaling.targetCPUUtilizationPercentage.
{{- end }}
{{- if and $v.autoscaling.enabled $v.autoscaling.targetCPUUtilizationPercentage (not (dig "requests" "cpu" (dig "limits" "cpu" "" $v.resources) $v.resources)) }}
- autoscaling.targetCPUUtilizationPercentage: a share of resources.requests.cpu, which is not set.
{{- end }}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) }}
- autoscaling.minReplicas is more than autoscaling.maxReplicas.
{{- end }}
{{- if and $v.keda.enabled (not $v.keda.triggers) (not $v.keda.prometheus.serverAddress) }}
- keda.triggers: say what to scale on, or set keda.prometheus.serverAddress.
{{- end }}
{{- if and $v.keda.enabled (not $v.keda.triggers) (eq (int $v.keda.minReplicaCount) 0) }}
- keda.minReplicaCount 0: without replicas there are no metrics of the server that could wake one; add a trigger that knows of requests, or keep one replica.
{{- end }}
{{- if and $v.keda.enabled (gt (int $v.keda.minReplicaCount) (int $v.keda.maxReplicaCount)) }}
- keda.minReplicaCount is more than keda.maxReplicaCount.
{{- end }}
{{- if and $v.podDisruptionBudget.enabled (not (kindIs "invalid" $v.podDisruptionBudget.minAvailable)) (not (kindIs "invalid" $v.podDisruptionBudget.maxUnavailable)) }}
- podDisruptionBudget: set minAvailable or maxUnavailable, not both.
{{- end }}
{{- if and $v.persistence.enabled (not $v.persistence.existingClaim) (not $v.statefulSet.enabled) (hasPrefix "ReadWriteOnce" $v.persistence.accessMode) (gt $replicas 1) }}
- persistence.accessMode {{ $v.persistence.accessMode }}: {{ $replicas }} replicas of a Deployment cannot share such a volume; use ReadWriteMany, or statefulSet.enabled: true for a volume each.
{{- end }}
{{- if and $v.persistence.enabled (not $v.persistence.existingClaim) (eq $v.persistence.accessMode "ReadOnlyMany") }}
- persistence.accessMode ReadOnlyMany: a new volume would stay empty; name one that has the model in persistence.existingClaim.
{{- end }}
{{- if and $v.persistence.enabled (not $v.persistence.existingClaim) (or $v.model.size (and $v.model.variant $v.model.precision)) (lt (include "gemma4-nim.megabytes" $v.persistence.size | int64) (include "gemma4-nim.modelMegabytes" . | int64)) }}
- persistence.size {{ $v.persistence.size }} is less than the model's {{ include "gemma4-nim.modelMegabytes" . }} MB.
{{- end }}
{{- if and $v.persistence.enabled (not $v.persistence.existingClaim) $v.persistence.readOnly (not (has $mode (list "job" "hook"))) }}
- persistence.readOnly: a new volume is empty, and nobody fills it; use download.mode job, or name a filled one in persistence.existingClaim.
{{- end }}
{{- if and (include "gemma4-nim.isReadOnly" .) (has $mode (list "server" "initContainer")) }}
- download.mode {{ $mode }}: the store is read-only for the server's pods; use job or hook, or none if the model is there.
{{- end }}
{{- if and $v.model.offline (has $v.download.mode (list "server" "initContainer" "job" "hook")) (not (hasPrefix "/" $v.model.mirror)) }}
- model.offline and download.mode {{ $v.download.mode }}: nothing can be downloaded offline; leave the mode at auto or none.
{{- end }}
{{- if and (hasPrefix "/" $v.model.uri) (has $mode (list "initContainer" "job" "hook")) }}
- download.mode {{ $mode }}: model.uri is a path, so there is nothing to download; leave the mode at auto or none.
{{- end }}
{{- if has $mode (list "job" "hook") }}
{{- if not $stores }}
- download.mode {{ $mode }}: an empty folder of another pod is of no use; enable persistence, nfs or hostPath.
{{- end }}
{{- if include "gemma4-nim.hasClaimTemplate" . }}
- download.mode {{ $mode }}: a StatefulSet with {{ $v.persistence.accessMode }} has a volume for each replica, which a job cannot fill; use ReadWriteMany, an existing claim, or statefulSet.enabled: false.
{{- end }}
{{- if not (or $v.model.profile $v.model.uri) }}
- download.mode {{ $mode }}: name model.profile or model.uri; without a GPU the job cannot tell which profile fits the server's.
{{- end }}
{{- end }}
{{- if eq $mode "hook" }}
{{- if and $v.persistence.enabled (not $v.persistence.existingClaim) }}
- download.mode hook: it runs before the chart's claim is made; name persistence.existingClaim, or use job.
{{- end }}
{{- if or $v.model.ngcAPIKey $v.model.hfToken }}
- download.mode hook: it runs before the chart's secrets are made; name existing ones in model.ngcAPISecret and model.hfTokenSecret.
{{- end }}
{{- end }}
{{- if and (eq $mode "none") (not $stores) (or $v.model.profile $v.model.variant $v.model.precision (contains "://" $v.model.uri)) }}
- nothing brings the model: nothing is downloaded (download.mode {{ $v.download.mode }}, model.offline {{ $v.model.offline }}), and no store that could have it is enabled.
{{- end }}
{{- if and $v.model.uri (or $v.model.profile $v.model.variant $v.model.precision $v.model.tags) }}
- model.uri names a model, so model.profile, variant, precision and tags have nothing to choose from; set one or the other.
{{- end }}
{{- if and $v.model.ngcAPIKey (ne $v.model.ngcAPISecret "ngc-api") }}
- model.ngcAPIKey and model.ngcAPISecret: set one or the other.
{{- end }}
{{- if and $v.model.hfToken $v.model.hfTokenSecret }}
- model.hfToken and model.hfTokenSecret: set one or the other.
{{- end }}
{{- $ids := list (dig "runAsUser" 1000 $v.podSecurityContext) (dig "runAsUser" 1000 $v.containerSecurityContext) -}}
{{- range $ids }}
{{- if and (not (kindIs "invalid" .)) (eq (int .) 0) (ne (dig "runAsNonRoot" (dig "runAsNonRoot" false $v.podSecurityContext) $v.containerSecurityContext) false) }}
- runAsUser 0 with runAsNonRoot: the kubelet would refuse the pod. The server needs no root: for a volume that uid 1000 cannot write to, set podSecurityContext.fsGroup.
{{- end }}
{{- end }}
{{- $gpus := list -}}
{{- range $name, $amount := $v.resources.limits -}}
{{- if and (hasPrefix "nvidia.com/" $name) $amount (ne (toString $amount) "0") -}}{{- $gpus = append $gpus $name -}}{{- end -}}
{{- end -}}
{{- if gt (len $gpus) 1 }}
- resources.limits asks for {{ join " and " $gpus }}: the server takes one kind; set the other to null.
{{- end }}
{{- if and $v.dynamicResources.enabled (semverCompare "<1.34.0-0" .Capabilities.KubeVersion.Version) }}
- dynamicResources: needs Kubernetes 1.34, this is {{ .Capabilities.KubeVersion.Version }}.
{{- end }}
{{- if lt (include "gemma4-nim.graceSeconds" . | int) (add $v.preStopSeconds (int64 $v.drainSeconds) | int) }}
- terminationGracePeriodSeconds {{ $v.terminationGracePeriodSeconds }} is less than preStopSeconds and drainSeconds together: answers would be cut off.
{{- end }}
{{- range $name, $mount := $v.extraVolumeMounts }}
{{- if not (hasKey $v.extraVolumes $name) }}
- extraVolumeMounts.{{ $name }}: there is no volume of that name in extraVolumes.
{{- end }}
{{- end }}
{{- range $name := list "model-store" "scratch" "dshm" "keys" "tls" "client-authority" "engine-authority" "engine-client" "adapters" }}
{{- if hasKey $v.extraVolumes $name }}
- extraVolumes.{{ $name }}: the chart has a volume of that name; choose another.
{{- end }}
{{- end }}
{{- range $name, $value := $v.settings }}
{{- if has $name (list "NIM_CACHE_PATH" "NIM_SERVER_PORT" "NIM_SHUTDOWN_GRACE_SECONDS" "NIM_OFFLINE" "NIM_START_TIMEOUT_SECONDS") }}
- settings.{{ $name }}: other parts of the pod depend on it; set {{ get (dict "NIM_CACHE_PATH" "model.nimCache" "NIM_SERVER_PORT" "model.openaiPort" "NIM_SHUTDOWN_GRACE_SECONDS" "drainSeconds" "NIM_OFFLINE" "model.offline" "NIM_START_TIMEOUT_SECONDS" "startupProbe.failureThreshold") $name }} instead.
{{- end }}
{{- end }}
{{- if and (has $v.service.type (list "ClusterIP")) $v.service.nodePort }}
- service.nodePort: a service of type ClusterIP has none.
{{- end }}
{{- if and (ne $v.service.type "LoadBalancer") (or $v.service.loadBalancerClass $v.service.loadBalancerSourceRanges) }}
- service.loadBalancerClass and loadBalancerSourceRanges: only a service of type LoadBalancer has them.
{{- end }}
{{- if and $v.service.externalTrafficPolicy (eq $v.service.type "ClusterIP") }}
- service.externalTrafficPolicy: a service of type ClusterIP has none.
{{- end }}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) }}
- httpRoute.parentRefs: name the gateway.
{{- end }}
{{- if and $v.httpRoute.enabled $v.httpRoute.useInferencePool (not $v.inferencePool.enabled) }}
- httpRoute.useInferencePool: there is no pool; set inferencePool.enabled: true.
{{- end }}
{{- if and $v.inferencePool.enabled (not $v.inferencePool.endpointPicker.name) }}
- inferencePool.endpointPicker.name: name the service of the endpoint picker.
{{- end }}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) }}
- ingress.hosts: name at least one.
{{- end }}
{{- include "gemma4-nim.accessContradictions" . }}
{{- include "gemma4-nim.engineContradictions" . }}
{{- include "gemma4-nim.adapterContradictions" . }}
{{- if $v.model.legacyCompat }}
- model.legacyCompat: only containers older than NIM 1.0 know it; set it to false.
{{- end }}
{{- with $v.initContainers.ngcInit }}
{{- $env := .env | default dict }}
{{- $parts := without (list $env.NGC_CLI_ORG $env.NGC_CLI_TEAM $env.NGC_MODEL_NAME) nil "" }}
- initContainers.ngcInit: the server downloads from NGC itself. Remove it and set model.uri: ngc://{{ join "/" $parts | default "ORG/TEAM/MODEL" }}:{{ $env.NGC_MODEL_VERSION | default "VERSION" }}, download.mode: initContainer, and model.ngcAPISecret: the name of a secret with the key NGC_API_KEY.
{{- end }}
{{- if $v.multiNode.enabled }}
- multiNode.enabled: one server runs on one node; engines over several nodes have pods of their own, see engines.enabled and engines.nodes.
{{- end }}
{{- end -}}

{{- define "gemma4-nim.refuseContradictions" -}}
{{- with include "gemma4-nim.contradictions" . | trim -}}
{{- fail (printf "\n\nThese values cannot be used:\n%s\n" (regexReplaceAll "\n\\s*\n" . "\n")) -}}
{{- end -}}
{{- end -}}

{{/* What a cluster never changes. It would refuse the upgrade with a message that names no way out. */}}
{{- define "gemma4-nim.refuseFixedChanges" -}}
{{- if not .Release.IsInstall -}}
{{- $name := include "gemma4-nim.fullname" . -}}
{{- if .Values.statefulSet.enabled -}}
{{- with lookup "apps/v1" "StatefulSet" .Release.Namespace $name -}}
{{- $wanted := "no volumes of their own" -}}
{{- if include "gemma4-nim.hasClaimTemplate" $ -}}
{{- $wanted = include "gemma4-nim.claimText" (dict "spec" (include "gemma4-nim.claimSpec" $ | fromYaml) "annotations" $.Values.persistence.annotations) -}}
{{- end -}}
{{- $live := "no volumes of their own" -}}
{{- range .spec.volumeClaimTemplates -}}
{{- $live = include "gemma4-nim.claimText" (dict "spec" .spec "annotations" .metadata.annotations) -}}
{{- end -}}
{{- if ne $live $wanted -}}
{{- fail (printf "\n\npersistence: the replicas of StatefulSet %s have %s, and a cluster refuses to change that to %s.\nDelete the StatefulSet without its pods and upgrade again; they run on until they are replaced one by one:\n  kubectl delete statefulset %s --namespace %s --cascade=orphan\nClaims that exist stay as they are: resize or delete them with kubectl.\n" $name $live $wanted $name $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.persistence.enabled (not .Values.persistence.existingClaim) (not (include "gemma4-nim.hasClaimTemplate" .)) -}}
{{- $wanted := include "gemma4-nim.claimSpec" . | fromYaml -}}
{{- with lookup "v1" "PersistentVolumeClaim" .Release.Namespace $name -}}
{{- $live := pick .spec "accessModes" -}}
{{- if hasKey $wanted "storageClassName" -}}
{{- $live = pick .spec "accessModes" "storageClassName" -}}
{{- end -}}
{{- if ne (toJson $live) (omit $wanted "resources" | toJson) -}}
{{- fail (printf "\n\npersistence: the claim %s has %s, and a cluster refuses to change that to %s.\nSet it back, or make a claim of your own and name it in persistence.existingClaim.\n" $name (toJson $live) (omit $wanted "resources" | toJson)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A claim template in words: dict "spec" SPEC "annotations" MAP. */}}
{{- define "gemma4-nim.claimText" -}}
volumes with {{ .spec.resources.requests.storage }}, {{ join "," .spec.accessModes }}, class {{ .spec.storageClassName | default "(default)" }}{{ with .annotations }}, annotations {{ toJson . }}{{ end }}
{{- end -}}
