# Evenkeel in nginx's seat: one static binary on an empty file system, run by a user without rights.
#
#     docker build -t evenkeel .
#
# The container listens on port 80 and reads /etc/nginx/nginx.conf, as the image `nginx` does. What it can and can't do
# there is in docs/guides/containers.md.

# Only what says which packages are needed: the layer below stays cached until that changes.
FROM rust:1-slim AS manifests
WORKDIR /src
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock -delete \
 && for package in crates/* app bench xtask; do \
        mkdir -p $package/src && echo > $package/src/lib.rs && echo 'fn main() {}' > $package/src/main.rs; \
    done

FROM rust:1-slim AS build
WORKDIR /src
ENV RUSTFLAGS="-C target-feature=+crt-static"
# With a target of its own, build scripts and macros aren't linked statically, which they can't be.
RUN rustc -vV | sed -n 's/host: //p' > /target
COPY --from=manifests /src .
RUN cargo build --profile image --locked --target "$(cat /target)" -p evenkeel --no-default-features --features kubernetes
COPY . .
# Sources are older than what was built in their place; touched, they are newer.
RUN find . -name '*.rs' -exec touch {} + \
 && cargo build --profile image --locked --target "$(cat /target)" -p evenkeel --no-default-features --features kubernetes \
 && cp "target/$(cat /target)/image/evenkeel" /evenkeel

# What the image `nginx` has, as far as configurations count on it: its paths, its default site, its user, its logs on
# standard output.
WORKDIR /image
RUN mkdir -p usr/sbin etc/nginx/conf.d var/log/nginx var/cache/nginx run tmp usr/share/nginx/html usr/share/nginx/client_body_temp \
        usr/share/nginx/proxy_temp \
 && cp /evenkeel usr/sbin/evenkeel && ln -s evenkeel usr/sbin/nginx \
 && cp /src/crates/keel-nginx/src/image.conf etc/nginx/nginx.conf \
 && cp /src/crates/keel-nginx/src/image-default.conf etc/nginx/conf.d/default.conf \
 && cp /src/crates/keel-nginx/src/image-index.html usr/share/nginx/html/index.html \
 && cp /src/crates/keel-nginx/src/image-50x.html usr/share/nginx/html/50x.html \
 && ln -s /dev/stdout var/log/nginx/access.log && ln -s /dev/stderr var/log/nginx/error.log \
 && ln -s /var/log/nginx usr/share/nginx/logs && ln -s /run var/run \
 && printf 'root:x:0:0::/:\nnginx:x:101:101::/nonexistent:\nnobody:x:65534:65534::/nonexistent:\n' > etc/passwd \
 && printf 'root:x:0:\nnginx:x:101:\nnogroup:x:65534:\n' > etc/group \
 && printf 'passwd: files\ngroup: files\nhosts: files dns\n' > etc/nsswitch.conf \
 && chown -R 101:101 var/log/nginx var/cache/nginx run usr/share/nginx/client_body_temp usr/share/nginx/proxy_temp \
 && chmod 1777 tmp

FROM scratch
COPY --from=build /image /
# Names in nginx.conf are followed through the container's own DNS: instances that Compose starts and stops come and go
# without an edit. A `resolver` in the file takes precedence.
ENV PATH=/usr/sbin EVENKEEL_RESOLVER=system
USER 101:101
EXPOSE 80
# So that `evenkeel up` knows whose seat this is.
LABEL evenkeel.role=balancer
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s CMD ["evenkeel", "healthcheck"]
CMD ["nginx", "-g", "daemon off;"]
