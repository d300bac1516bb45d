//! A real API server with its etcd, from the folder that `KUBEBUILDER_ASSETS` names; one for all tests of the process.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Both end when the pipe to their shell does, hence with this process, however that ends: the shell is of another process group,
/// which a signal to this one's does not reach, and a server that is told to end in good order waits for an etcd that is gone.
pub struct RealApi {
    pub kubeconfig: String,
    shell: Child,
    _folder: TempDir,
}

const SCRIPT: &str = r#"
"$ASSETS/etcd" --data-dir "$HOME_DIR/etcd" --listen-client-urls "http://127.0.0.1:$P1" \
  --advertise-client-urls "http://127.0.0.1:$P1" --listen-peer-urls "http://127.0.0.1:$P2" >"$HOME_DIR/etcd.log" 2>&1 &
E=$!
api() {
"$ASSETS/kube-apiserver" --etcd-servers="http://127.0.0.1:$P1" --cert-dir="$HOME_DIR/certs" --secure-port="$P3" \
  --bind-address=127.0.0.1 --service-account-issuer=https://kubernetes.test \
  --service-account-key-file="$HOME_DIR/sa.pub" --service-account-signing-key-file="$HOME_DIR/sa.key" \
  --token-auth-file="$HOME_DIR/tokens.csv" --authorization-mode=RBAC --service-cluster-ip-range=10.0.0.0/24 \
  --disable-admission-plugins=ServiceAccount >"$HOME_DIR/api.log" 2>&1 &
A=$!
}
api
while read -r WORD; do
  kill -9 "$A"; wait "$A"
  if [ "$WORD" = restart ]; then api; fi
done
# Asked to end, the one would wait for the other.
kill -9 "$A" "$E"
"#;

impl RealApi {
    /// Starts it and waits until it answers.
    pub async fn start(assets: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(folder.path().join("sa.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("sa.pub"), key.public_key_pem()).unwrap();
        std::fs::write(folder.path().join("tokens.csv"), "test-admin,admin,1,system:masters\n").unwrap();
        let ports = [free_port(), free_port(), free_port()];
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT])
            .env("ASSETS", assets)
            .env("HOME_DIR", folder.path())
            .process_group(0)
            .stdin(Stdio::piped());
        for (index, port) in ports.iter().enumerate() {
            command.env(format!("P{}", index + 1), port.to_string());
        }
        let shell = command.spawn().unwrap();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{}\", insecure-skip-tls-verify: true}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n\
             users: [{{name: test, user: {{token: test-admin}}}}]\n",
            ports[2]
        );
        let since = Instant::now();
        loop {
            let client = client(&kubeconfig).await;
            if let Ok(version) = client.apiserver_version().await {
                eprintln!("kube-apiserver {} answers after {:?}", version.git_version, since.elapsed());
                break;
            }
            // The log of a server that ended says why.
            let log = || std::fs::read_to_string(folder.path().join("api.log")).unwrap_or_default();
            assert!(since.elapsed() < Duration::from_secs(120), "no answer: {}", log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Self { kubeconfig, shell, _folder: folder }
    }
}

impl RealApi {
    /// Ends the API server, and starts it again on `restart`.
    pub fn tell(&mut self, word: &str) {
        use std::io::Write as _;
        writeln!(self.shell.stdin.as_mut().unwrap(), "{word}").unwrap();
    }
}

/// A client as a kubeconfig says.
pub async fn client(kubeconfig: &str) -> kube::Client {
    let file = kube::config::Kubeconfig::from_yaml(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
