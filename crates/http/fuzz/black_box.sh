#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Sends kept and changed inputs to Weft and to another proxy, and compares the requests that come out.
#
#   black_box.sh h1|h2 haproxy|nginx SECONDS [ARTIFACTS]
#
# Needs haproxy or nginx, and `cargo build --bins` in the workspace. What differs is written to ARTIFACTS, and the
# exit code is 1 if both proxies let through requests that are not the same.
set -euo pipefail
cd "$(dirname "$0")"
version=${1:?h1 or h2} peer=${2:?haproxy or nginx} seconds=${3:?seconds} artifacts=${4:-artifacts/black_box}
weft=${WEFT_BIN:-../../../target/debug}
run=$(mktemp -d)
address=127.0.0.77 weft_port=21080 weft_origin=21081 peer_port=21082 peer_origin=21083
pids=()
stop() { [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$run"; }
trap stop EXIT

mkdir "$run/manifests"
cat >"$run/manifests/all.yaml" <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: box}
---
apiVersion: v1
kind: Node
metadata: {name: box}
status: {addresses: [{type: InternalIP, address: 127.0.0.1}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: box, name: origin}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10]
  ports: [{name: http, port: 80, targetPort: $weft_origin, protocol: TCP, appProtocol: http}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: box, name: origin-1, labels: {kubernetes.io/service-name: origin}}
addressType: IPv4
ports: [{name: http, port: $weft_origin, protocol: TCP, appProtocol: http}]
endpoints: [{addresses: [$address], conditions: {ready: true}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: weft}
spec: {controllerName: weft.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: box, name: web}
spec: {gatewayClassName: weft, listeners: [{name: http, port: $weft_port, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {namespace: box, name: all}
spec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: origin, port: 80}]}]}
YAML

cat >"$run/haproxy.cfg" <<CFG
global
  nbthread 1
defaults
  mode http
  timeout connect 2s
  timeout client 5s
  timeout server 5s
  http-reuse never
frontend box
  bind $address:$peer_port $([ "$version" = h1 ] || echo proto h2)
  default_backend origin
backend origin
  server origin $address:$peer_origin
CFG
cat >"$run/nginx.conf" <<CFG
daemon off;
worker_processes 1;
pid $run/nginx.pid;
error_log $run/nginx.log;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path $run/body;
  proxy_temp_path $run/proxy;
  fastcgi_temp_path $run/fastcgi;
  uwsgi_temp_path $run/uwsgi;
  scgi_temp_path $run/scgi;
  client_header_timeout 5s;
  client_body_timeout 5s;
  merge_slashes off;
  server {
    listen $address:$peer_port $([ "$version" = h1 ] || echo http2);
    location / {
      proxy_pass http://$address:$peer_origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_ignore_client_abort on;
    }
  }
}
CFG

"$weft/weft-controller" --source "dir:$run/manifests" --listen 127.0.0.1:21084 --state-dir "$run/controller" \
  --join-token-file "$run/token" >"$run/controller.log" 2>&1 &
pids+=($!)
until [ -s "$run/token" ]; do kill -0 "${pids[0]}" || { cat "$run/controller.log"; exit 2; }; sleep 0.1; done
"$weft/weft-node" --node box --controller 127.0.0.1:21084 --join-token-file "$run/token" --state-dir "$run/node" \
  --admin "unix:$run/node.sock" --listen-address "$address" --workers 1 --no-redirect >"$run/node.log" 2>&1 &
pids+=($!)
case "$peer" in
haproxy) haproxy -db -f "$run/haproxy.cfg" >"$run/peer.log" 2>&1 & ;;
nginx) nginx -c "$run/nginx.conf" >"$run/peer.log" 2>&1 & ;;
*) echo "$peer: haproxy or nginx" >&2; exit 2 ;;
esac
pids+=($!)
for port in $weft_port $peer_port; do
  for _ in $(seq 100); do (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null && continue 2; sleep 0.1; done
  cat "$run"/*.log >&2
  exit 2
done

[ -d "corpus/${version}_server" ] || cargo run --quiet --release --bin corpus unpack
cargo run --quiet --release --bin black_box "$version" "$seconds" "corpus/${version}_server" "$artifacts" \
  weft "$address:$weft_port" "$address:$weft_origin" "$peer" "$address:$peer_port" "$address:$peer_origin"
