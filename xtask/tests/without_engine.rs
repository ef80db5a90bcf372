//! What people are told who ask for containers where no engine answers.

use std::process::Command;

#[test]
fn without_an_engine_it_is_said_at_once_and_nothing_is_built() {
    for command in ["tutorial", "conformance"] {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        let ended = xtask.args([command, "--docker"]).env("DOCKER_HOST", "tcp://127.0.0.1:1").output();
        let ended = ended.expect("the command runs");
        assert!(!ended.status.success(), "{command}");
        let [told, failed] =
            [ended.stdout, ended.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        assert!(
            failed.contains("no container engine answers: install Docker, or start it"),
            "{command}: {failed}"
        );
        assert_eq!(told, "", "{command}");
    }
}
