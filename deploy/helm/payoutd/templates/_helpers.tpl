{{- define "payoutd.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "payoutd.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "payoutd.labels" -}}
{{ include "payoutd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "payoutd.claim" -}}
{{- default (printf "%s-ledger" (include "payoutd.name" .)) .Values.persistence.existingClaim -}}
{{- end -}}

{{/* Not empty where replicas share a PostgreSQL ledger. */}}
{{- define "payoutd.shared" -}}
{{- if .Values.ledger.url -}}
yes
{{- else if gt (int .Values.replicas) 1 -}}
{{- fail "replicas: more than one needs ledger.url, a PostgreSQL ledger that they share. With a ledger each they would pay one id twice" -}}
{{- end -}}
{{- end -}}

{{/* Not empty where the settings name a collector of traces. */}}
{{- define "payoutd.traced" -}}
{{- if or (get .Values.env "PAYOUTD_TELEMETRY__OTLP_ENDPOINT") (regexMatch "(?m)^[^#\\n]*\\botlp_endpoint\\b[^=\\n]*=" .Values.extraToml) -}}
yes
{{- end -}}
{{- end -}}

{{/*
Fails while this release still runs as the other kind, over the other ledger: the new pods would know none of the
payouts that the old ones have made. Asks the cluster, so a mere rendering sees nothing.
*/}}
{{- define "payoutd.alone" -}}
{{- $other := ternary "StatefulSet" "Deployment" (eq (include "payoutd.shared" .) "yes") -}}
{{- with lookup "apps/v1" $other .Release.Namespace (include "payoutd.name" .) -}}
{{- if or .spec.replicas (.status).replicas -}}
{{- fail (printf "ledger.url: a %s still runs over another ledger. Scale it to 0 and copy the ledger first (docs/operations.md, Moving the ledger to PostgreSQL)" $other) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A JSON text is a TOML text, too. */}}
{{- define "payoutd.toml" -}}
{{- $shared := include "payoutd.shared" . -}}
{{- if $shared -}}
# Where the ledger is, PAYOUTD_LEDGER__URL says, which would win over this file.
{{- else -}}
# Where the ledger is, the image says (PAYOUTD_LEDGER__URL, which would win over this file).
{{- end }}

[grpc]
listen = "0.0.0.0:50051"
{{- if $shared }}
# As long as the news of a pod's end takes: then callers are with another replica already.
drain_delay = "5s"
{{- end }}
{{- if eq .Values.grpc.security "mesh" }}
trust = "mesh"
{{- with .Values.grpc.trustedProxies }}
trusted_proxies = {{ toJson . }}
{{- end }}
{{- else }}
{{- if eq .Values.grpc.callersSecret .Values.grpc.tlsSecret }}
{{- fail "grpc.callersSecret: must not be grpc.tlsSecret. Its ca.crt is the root of whoever issued the server's certificate, and everybody with a certificate of that issuer would get in" }}
{{- end }}

[grpc.tls]
cert_file = "/run/secrets/tls/tls.crt"
key_file = "/run/secrets/tls/tls.key"
client_ca_file = "/run/secrets/callers/ca.crt"
{{- end }}

[callback]
listen = "0.0.0.0:8080"
public_url = {{ .Values.callback.publicUrl | toJson }}

[admin]
listen = "0.0.0.0:9090"

[log]
format = "json"
{{- if $shared }}

[ledger]
password_file = "/run/secrets/postgres/password"
witness = "/var/lib/payoutd-witness/witness"
{{- with .Values.ledger.caSecret }}
tls_ca_file = "/run/secrets/postgres-ca/ca.crt"
{{- end }}
max_connections = {{ int .Values.ledger.maxConnections }}
{{- end }}
{{- range .Values.projects }}

[[project]]
pid = {{ .pid }}
base_url = {{ .baseUrl | toJson }}
api_key_file = {{ printf "/run/secrets/cregis/%s" .apiKey | toJson }}
{{- with .timeout }}
timeout = {{ toJson . }}
{{- end }}
{{- with .connectTimeout }}
connect_timeout = {{ toJson . }}
{{- end }}
{{- with .maxInFlight }}
max_in_flight = {{ int . }}
{{- end }}
{{- with .pollFirst }}
poll_first = {{ toJson . }}
{{- end }}
{{- with .verification }}
verification = {{ . }}
{{- end }}
{{- with .resendInDoubt }}
resend_in_doubt = {{ . }}
{{- end }}
{{- with .strictText }}
strict_text = {{ . }}
{{- end }}
{{- end }}
{{- range .Values.callers }}

[[caller]]
name = {{ .name | toJson }}
roles = {{ .roles | toJson }}
{{- with .identities }}
identities = {{ toJson . }}
{{- end }}
{{- with .tokenSha256 }}
token_sha256 = {{ toJson . }}
{{- end }}
{{- with .projects }}
projects = [{{ join ", " . }}]
{{- end }}
{{- with .ownPayoutsOnly }}
own_payouts_only = {{ . }}
{{- end }}
{{- end }}
{{- with .Values.extraToml }}
{{- range $key, $file := dict "api_key" "api_key_file" "password" "password_file" }}
{{- if regexMatch (printf "\\b%s\\b[\"']?\\s*=" $key) $.Values.extraToml }}
{{- fail (printf "extraToml: holds %s, and a ConfigMap is no place for a secret. Use %s, which names a file of a mounted Secret" $key $file) }}
{{- end }}
{{- end }}
{{- if regexMatch "://[^/\\s\"']*:[^/\\s\"']*@" . }}
{{- fail "extraToml: holds a URL with a password, and a ConfigMap is no place for a secret. Use password_file, which names a file of a mounted Secret" }}
{{- end }}

{{ . | trim }}
{{- end }}
{{- end -}}
