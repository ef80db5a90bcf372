//! The text of `docker/compose.yaml`.

use std::fmt::Write;

use super::{
    BUILD_VARIABLES, Image, Topology,
    topology::{Port, Service},
};

const HEAD: &str = "\
# The clusters of `cargo xtask cluster up`, in containers. Written by `cargo xtask docker write`; do not edit.
#
#   docker compose --file docker/compose.yaml --profile etcd3 up --build --wait
#   docker compose --file docker/compose.yaml --profile etcd3 down --volumes
#
# The profiles are PROFILES. REDIS_IMAGE, ETCD_IMAGE and ZOOKEEPER_IMAGE name other
# images to build from, and the variables in `ports` other ports of the host.
";

/// Returns what `docker/compose.yaml` has to say.
#[must_use]
pub fn compose_file() -> String {
    let profiles = Topology::ALL.iter().map(Topology::to_string).collect::<Vec<_>>().join(", ");
    let mut text = HEAD.replace("PROFILES", &profiles);
    for image in Image::ALL {
        text += &template(*image);
    }
    text += "\nservices:\n";
    for topology in Topology::ALL {
        for service in topology.services() {
            text += &entry(*topology, &service);
        }
    }
    text += "\nnetworks:\n";
    for network in Topology::ALL.iter().flat_map(|topology| topology.networks()) {
        // What is only between servers leads nowhere else; so published ports go over the network of clients.
        let inner = if network.ends_with("-peers") { "\n    internal: true" } else { " {}" };
        writeln!(text, "  {network}:{inner}").expect("a text takes all");
    }
    text
}

/// What all containers of one image have in common.
fn template(image: Image) -> String {
    let (stage, name, variable) = (image.stage(), image.name(), image.variable());
    let mut text = format!(
        "\nx-{stage}: &{stage}\n  image: {name}\n  build:\n    context: .\n    target: {stage}\n    args:\n      \
         {variable}: ${{{variable}:-servers}}\n"
    );
    for variable in BUILD_VARIABLES {
        writeln!(text, "      {variable}: ${{{variable}:-}}").expect("a text takes all");
    }
    text + "  volumes: [/data]\n  stop_grace_period: 1s\n"
}

fn entry(topology: Topology, service: &Service) -> String {
    let Service { name, image, ports, command, environment, health, networks, lives_in } = service;
    let mut lines = vec![
        format!("\n  {name}:"),
        format!("    <<: *{}", image.stage()),
        format!("    profiles: [{topology}]"),
        format!("    command:{}", list(command)),
    ];
    if !environment.is_empty() {
        lines.push("    environment:".to_owned());
        lines.extend(environment.iter().map(|(name, value)| format!("      {name}: {value:?}")));
    }
    if !ports.is_empty() {
        let publish = |port: &Port| format!("127.0.0.1:{}:{}", port.outside(), port.inside());
        lines.push(format!("    ports:{}", list(&ports.iter().map(publish).collect::<Vec<_>>())));
    }
    match lives_in {
        Some(other) => lines.push(format!("    network_mode: service:{other}\n    depends_on: [{other}]")),
        None => {
            lines.push("    networks:".to_owned());
            lines.extend(networks.iter().map(|(network, alias)| match alias {
                Some(alias) => format!("      {network}:\n        aliases: [{alias}]"),
                None => format!("      {network}: {{}}"),
            }));
        }
    }
    if !health.is_empty() {
        lines.push(format!("    healthcheck:\n      test:{}", list(health)));
        lines.push("      interval: 1s\n      timeout: 5s\n      retries: 120".to_owned());
    }
    lines.join("\n") + "\n"
}

/// One word a line, so that a change shows as what it is.
fn list(words: &[String]) -> String {
    let words = words.iter().map(|word| format!("\n      - {word:?}"));
    words.collect()
}
