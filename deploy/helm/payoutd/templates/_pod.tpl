{{/* What runs, whoever keeps it running: a StatefulSet over its own ledger, or a Deployment over a shared one. */}}
{{- define "payoutd.pod" -}}
{{- $tls := eq .Values.grpc.security "tls" -}}
{{- $shared := include "payoutd.shared" . -}}
metadata:
  labels:
    {{- include "payoutd.selector" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: payoutd
    checksum/config: {{ include "payoutd.toml" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "payoutd.name" . }}
  automountServiceAccountToken: false
  # Variables for a Service named payoutd would begin with PAYOUTD_, and unknown settings are mistakes.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
    {{- with .Values.hardening.appArmorProfile }}
    appArmorProfile: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .Values.hardening.supplementalGroupsPolicy }}
    supplementalGroupsPolicy: {{ . }}
    {{- end }}
  {{- if not .Values.hardening.hostUsers }}
  hostUsers: false
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  containers:
    - name: payoutd
      {{- with .Values.image }}
      image: {{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
      imagePullPolicy: {{ .pullPolicy }}
      {{- end }}
      args: [serve, --config, /etc/payoutd/payoutd.toml]
      {{- if or $shared .Values.env }}
      env:
        {{- if $shared }}
        # A variable, since the image has one, which would win over the file.
        - name: PAYOUTD_LEDGER__URL
          value: {{ .Values.ledger.url | quote }}
        {{- end }}
        {{- range $name, $value := .Values.env }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
      {{- end }}
      ports:
        - name: grpc
          containerPort: 50051
        - name: callback
          containerPort: 8080
        - name: admin
          containerPort: 9090
      startupProbe:
        httpGet:
          path: /livez
          port: admin
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet:
          path: /livez
          port: admin
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        {{- if $tls }}
        # Kubernetes' gRPC probe speaks no TLS.
        httpGet:
          path: /readyz
          port: admin
        {{- else }}
        grpc:
          port: 50051
        {{- end }}
        periodSeconds: 5
        timeoutSeconds: 2
        failureThreshold: 2
      resources: {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      volumeMounts:
        {{- if not $shared }}
        - name: ledger
          mountPath: /var/lib/payoutd
        {{- end }}
        - name: config
          mountPath: /etc/payoutd
          readOnly: true
        - name: cregis
          mountPath: /run/secrets/cregis
          readOnly: true
        {{- if $tls }}
        - name: tls
          mountPath: /run/secrets/tls
          readOnly: true
        - name: callers
          mountPath: /run/secrets/callers
          readOnly: true
        {{- end }}
        {{- if $shared }}
        - name: postgres
          mountPath: /run/secrets/postgres
          readOnly: true
        - name: witness
          mountPath: /var/lib/payoutd-witness
        {{- end }}
        {{- if and $shared .Values.ledger.caSecret }}
        - name: postgres-ca
          mountPath: /run/secrets/postgres-ca
          readOnly: true
        {{- end }}
  volumes:
    {{- if not $shared }}
    - name: ledger
      persistentVolumeClaim:
        claimName: {{ include "payoutd.claim" . }}
    {{- end }}
    - name: config
      configMap:
        name: {{ include "payoutd.name" . }}
    - name: cregis
      secret:
        secretName: {{ .Values.apiKeysSecret }}
        defaultMode: 0440
    {{- if $tls }}
    - name: tls
      secret:
        secretName: {{ .Values.grpc.tlsSecret }}
        defaultMode: 0440
    - name: callers
      secret:
        secretName: {{ .Values.grpc.callersSecret }}
        defaultMode: 0440
    {{- end }}
    {{- if $shared }}
    - name: postgres
      secret:
        secretName: {{ .Values.ledger.passwordSecret }}
        defaultMode: 0440
    # What was acknowledged: outlives the container and not the pod. A new pod asks those that run.
    - name: witness
      emptyDir:
        sizeLimit: 1Mi
    {{- end }}
    {{- if and $shared .Values.ledger.caSecret }}
    - name: postgres-ca
      secret:
        secretName: {{ .Values.ledger.caSecret }}
        defaultMode: 0440
    {{- end }}
  {{- if $shared }}
  topologySpreadConstraints:
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: {{ $.Values.topologySpread }}
      labelSelector:
        matchLabels: {{- include "payoutd.selector" $ | nindent 10 }}
      # Each version by itself, or a rolling update would end lopsided.
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
