{{/* Alerts on the server's own metrics, as a list; without a scraper they never fire. docs/operations.md lists the metrics. */}}
{{- define "gemma4-nim.metricAlerts" -}}
{{- $pods := include "gemma4-nim.podMatchers" . -}}
{{- $requests := printf "route!~\"/v1/health/.*|(/v1)?/metrics\", %s" $pods -}}
{{- $slow := include "gemma4-nim.text" .Values.prometheusRule.firstTokenSeconds -}}
{{- list
  (dict "alert" "GemmaErrors" "severity" "critical" "for" "10m"
    "expr" (printf "sum(rate(gemma4_nim_http_requests_total{status=~\"5..\", %s}[10m])) / sum(rate(gemma4_nim_http_requests_total{%s}[10m])) > 0.05" $requests $requests)
    "summary" "Requests fail"
    "description" "{{ $value | humanizePercentage }} of the requests were answered with a status of 500 or more. The log has the reason by its request id.")
  (dict "alert" "GemmaSlowFirstToken" "severity" "warning" "for" "15m"
    "expr" (printf "histogram_quantile(0.95, sum by (le) (rate(gemma4_nim_time_to_first_token_seconds_bucket{%s}[10m]))) > %s" $pods $slow)
    "summary" "Answers begin late"
    "description" "One request in twenty waits longer than {{ $value | humanizeDuration }} for its first token. Requests that queue need more replicas, long prompts a GPU with more room.")
  (dict "alert" "GemmaQueueLong" "severity" "warning" "for" "10m"
    "expr" (printf "sum(gemma4_nim_engine_queued_sequences{%s}) > sum(gemma4_nim_engine_max_sequences{%s})" $pods $pods)
    "summary" "More requests wait than can run"
    "description" "{{ $value }} requests wait, for ten minutes. Add replicas, or raise NIM_MAX_NUM_SEQS if memory allows.")
  (dict "alert" "GemmaRefusing" "severity" "warning" "for" "5m"
    "expr" (printf "sum(rate(gemma4_nim_requests_total{code=~\"queue_full|queue_timeout\", %s}[5m])) > 0" $pods)
    "summary" "Requests are refused for want of room"
    "description" "{{ $value | humanize }} requests per second get status 429, as the queue is full or the wait too long. Add replicas.")
  (dict "alert" "GemmaEngineDown" "severity" "warning" "for" (printf "%dm" (include "gemma4-nim.startupSeconds" . | float64 | mulf 0.0166667 | ceil | int64 | add 5))
    "expr" (printf "gemma4_nim_engine_up{%s} == 0" $pods)
    "summary" "An engine does not answer"
    "description" "Engine {{ $labels.engine }} of pod {{ $labels.pod }} is away for longer than a start may take.")
  (dict "alert" "GemmaCrashes" "severity" "warning" "for" "0m"
    "expr" (printf "increase(gemma4_nim_process_restarts_total{%s}[1h]) > 2" $pods)
    "summary" "A process inside the server crashes again and again"
    "description" "The {{ $labels.process }} process of pod {{ $labels.pod }} was started again {{ $value | humanize }} times within an hour; requests in flight were lost. The log tells why it ended.")
  (dict "alert" "GemmaCacheFull" "severity" "warning" "for" "15m"
    "expr" (printf "gemma4_nim_engine_kv_cache_usage_ratio{%s} > 0.95" $pods)
    "summary" "The KV cache is full"
    "description" "Running sequences fill {{ $value | humanizePercentage }} of the KV cache of pod {{ $labels.pod }}, so others wait. Add replicas, or take a GPU with more memory.")
| toYaml -}}
{{- end -}}
