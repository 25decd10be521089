//! What a project's files become for a cluster, as whole texts.

#![cfg(feature = "kubernetes")]

use std::{fmt::Write, fs, io, path::Path};

use keel_control::project::{Exported, KubernetesOptions, ProjectOptions, SwarmOptions};

/// Every field that the exports have something to say about.
const RICH: &str = r#"
name: shop
services:
  web:
    image: registry.example.org/shop/web:3
    entrypoint: ["/bin/web"]
    command: ["--greeting", "$$(hostname)", "--port=9000"]
    environment: {PORT: "9000", COUNT: 5, FLAG: "yes"}
    working_dir: /srv
    user: "1000:1001"
    expose: ["9000"]
    healthcheck:
      test: curl -f localhost:9000/health
      interval: 10s
      timeout: 2s
      retries: 4
      start_period: 20s
    stop_grace_period: 1m30s
    stop_signal: SIGINT
    read_only: true
    cap_drop: [ALL]
    cap_add: [CAP_NET_BIND_SERVICE]
    security_opt: ["no-new-privileges:true"]
    tmpfs: [/scratch]
    ulimits: {nofile: 1024}
    networks: {front: {aliases: [www]}, back: {}}
    extra_hosts: ["db.example.org:10.0.0.7"]
    labels: {team: blue, com.docker.x: gone}
    configs: [{source: settings, target: /etc/web.toml}]
    secrets: [token]
    volumes: ["./pages:/srv/pages:ro", "uploads:/srv/uploads", "./nowhere:/srv/nowhere"]
    depends_on:
      schema: {condition: service_completed_successfully}
      db: {condition: service_healthy}
    deploy:
      replicas: 3
      update_config: {parallelism: 2, delay: 5s, order: start-first, failure_action: rollback}
      resources:
        limits: {cpus: "0.5", memory: 256M}
        reservations: {cpus: "0.1", memory: 64M}
  schema:
    image: registry.example.org/shop/schema:3
    restart: on-failure
  db:
    image: postgres:17
    ports: ["127.0.0.1:5432:5432"]
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: ["CMD", "pg_isready"]}
  my_queue:
    image: queue
    expose: ["7000"]
  proxy:
    image: nginx:1.29
    ports: ["80:80", "8443:8443"]
    environment: {UPSTREAM: web}
    volumes: ["./templates:/etc/nginx/templates:ro", "./static:/usr/share/nginx/html:ro"]
    deploy: {replicas: 2}
  unused: {image: busybox, profiles: [tools]}
networks: {front: {}, back: {}}
volumes: {data: {}, uploads: {}}
configs: {settings: {content: "colour = 'blue'\n"}}
secrets: {token: {file: ./token}}
"#;

const TEMPLATE: &str = "upstream web { server ${UPSTREAM}:9000; }
server { listen 80; listen 8443; location / { proxy_pass http://web; } location /queue { proxy_pass http://my_queue:7000; } }
";

fn rich() -> io::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, text)
    };
    write("docker-compose.yml", RICH)?;
    write("templates/default.conf.template", TEMPLATE)?;
    write("static/index.html", "<h1>shop</h1>\n")?;
    write("pages/a.html", "a\n")?;
    write("pages/sub/b.html", "b\n")?;
    write("token", "open sesame")?;
    Ok(folder)
}

fn options(folder: &Path, name: &str) -> ProjectOptions {
    ProjectOptions {
        compose: keel_compose::Options {
            folder: folder.into(),
            project_name: Some(name.into()),
            ..keel_compose::Options::default()
        },
        state: folder.join("state"),
        cache: folder.join("cache"),
    }
}

fn kubernetes(minor_version: u32) -> KubernetesOptions {
    let drain = std::time::Duration::from_secs(5);
    KubernetesOptions { image: "evenkeel:1".into(), minor_version, drain }
}

/// All files, and what is said about them, with the folder's path taken out.
fn shown(exported: &Exported, folder: &Path) -> String {
    let mut text = String::new();
    for file in &exported.files {
        // Writing to a String can't fail.
        _ = write!(text, "# {} {:?}\n{}\n", file.path.display(), file.readers, file.text);
    }
    let format = keel_diag::Format::Human;
    text += &keel_diag::render(&exported.diagnostics, &exported.sources, format, keel_diag::Color::None);
    text.replace(&folder.display().to_string(), "FOLDER")
}

#[test]
fn the_demo_for_kubernetes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    insta::assert_snapshot!(shown(&options(&folder, "demo").export_kubernetes(&kubernetes(33)), &folder));
}

#[test]
fn a_rich_project_for_kubernetes() {
    let folder = rich().unwrap();
    let exported = options(folder.path(), "shop").export_kubernetes(&kubernetes(33));
    insta::assert_snapshot!(shown(&exported, folder.path()));
}

#[test]
fn an_old_cluster_gets_what_it_knows() {
    let folder = rich().unwrap();
    let exported = options(folder.path(), "shop").export_kubernetes(&kubernetes(20));
    let text = shown(&exported, folder.path());
    assert!(!text.contains("sleep:") && !text.contains("ip_unprivileged_port_start"), "{text}");
    assert!(text.contains("policy/v1beta1") && !text.contains("policy/v1\n"), "{text}");
    assert!(text.contains("Kubernetes 1.20 can't let an instance serve on"), "{text}");
}

#[test]
fn published_ports_without_an_nginx_conf_get_a_balancer() {
    let folder = tempfile::tempdir().unwrap();
    let text = "services: {web: {image: web, scale: 2, ports: ['8080:5000']}, db: {image: db, ports: ['5432:5432']}}";
    fs::write(folder.path().join("compose.yaml"), text).unwrap();
    let exported = options(folder.path(), "direct").export_kubernetes(&kubernetes(33));
    let names: Vec<_> = exported.files.iter().map(|file| file.path.display().to_string()).collect();
    let text = shown(&exported, folder.path());
    for name in ["deployment-evenkeel.yaml", "service-evenkeel-published.yaml", "service-db-published.yaml"] {
        assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|name| name == "service-web-published.yaml"), "{names:?}");
    assert!(text.contains("server web:5000;"), "{text}");
}

#[test]
fn a_rich_project_for_a_swarm() {
    let folder = rich().unwrap();
    let options = options(folder.path(), "shop");
    let exported = options.export_swarm(&SwarmOptions { image: "evenkeel:1".into() });
    insta::assert_snapshot!(shown(&exported, folder.path()));
}
