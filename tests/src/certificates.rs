//! Certificates of an authority that nobody else knows, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const EXTENSIONS: &str =
    "extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n";

/// An authority of its own, and a certificate that it signed: `ca.pem`, `node.pem` and `node.key`.
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let authority = "-keyout ca.key -out ca.pem -days 30 -subj /CN=authority";
        openssl(dir.path(), &format!("req -x509 {key} {authority}"));
        openssl(dir.path(), &format!("req {key} -keyout node.key -out node.csr -subj /CN=node"));
        std::fs::write(dir.path().join("extensions"), EXTENSIONS).expect("a file");
        let signed = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile extensions";
        openssl(dir.path(), &format!("x509 -req -in node.csr -out node.pem {signed}"));
        Self { dir }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(dir)
        .output()
        .expect("openssl can be run: `apt-get install openssl`");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
