//! Compiled modules on disk.
//!
//! To load compiled code is to run it, so the cache takes nothing but its own: every file carries an
//! HMAC under a key that lives in the same private directory. Whatever is wrong with a file, the
//! module is compiled again and the file overwritten.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::words::{Digest, limits};

const KEY_FILE: &str = "key";
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 32;

pub struct Cache {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
    /// Distinguishes engines whose compiled code would not fit each other.
    compatibility: u64,
    written: AtomicU64,
}

impl Cache {
    pub fn open(dir: &Path, engine: &wasmtime::Engine) -> anyhow::Result<Self> {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        make_private(dir)
            .with_context(|| format!("cannot use {} for compiled modules", dir.display()))?;
        let mut cache = Self {
            dir: dir.to_owned(),
            key: [0; KEY_BYTES],
            compatibility: hasher.finish(),
            written: AtomicU64::new(0),
        };
        cache.key = cache.load_key()?;
        Ok(cache)
    }

    /// The compiled form, if there is one that we wrote. Blocks.
    pub fn read(&self, digest: &Digest) -> Option<Vec<u8>> {
        let name = self.name(digest);
        match self.read_checked(&name) {
            Ok(compiled) => Some(compiled),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = name, %error, "a compiled module is not usable: compiling it again");
                None
            }
        }
    }

    /// Keeps a compiled form. A failure costs a compilation at the next start, nothing else. Blocks.
    pub fn write(&self, digest: &Digest, compiled: &[u8]) {
        let name = self.name(digest);
        let tag = self.mac(&name, compiled).finalize().into_bytes();
        if let Err(error) = self.replace(&name, &[tag.as_slice(), compiled]) {
            tracing::warn!(file = name, %error, "a compiled module could not be kept");
        }
        if let Err(error) = self.evict(limits::COMPILED_CACHE_BYTES_MAX) {
            tracing::warn!(%error, "old compiled modules could not be removed");
        }
    }

    fn name(&self, digest: &Digest) -> String {
        format!("{digest}-{:016x}.compiled", self.compatibility)
    }

    /// The name is part of what is authenticated: no file can stand in for another.
    fn mac(&self, name: &str, compiled: &[u8]) -> Hmac<Sha256> {
        // The key has the length of an HMAC block or less, which is always accepted.
        let mut mac = match Hmac::<Sha256>::new_from_slice(&self.key) {
            Ok(mac) => mac,
            Err(_) => unreachable!("HMAC takes keys of any length"),
        };
        mac.update(name.as_bytes());
        mac.update(&[0]);
        mac.update(compiled);
        mac
    }

    fn read_checked(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut file = open_no_follow(&self.dir.join(name))?;
        let mut tag = [0; TAG_BYTES];
        file.read_exact(&mut tag)?;
        let mut compiled = Vec::new();
        file.take(limits::COMPILED_BYTES_MAX as u64 + 1).read_to_end(&mut compiled)?;
        if compiled.len() > limits::COMPILED_BYTES_MAX {
            return Err(invalid_data("the file is too large"));
        }
        self.mac(name, &compiled)
            .verify_slice(&tag)
            .map_err(|_| invalid_data("the file is not what this host wrote"))?;
        Ok(compiled)
    }

    fn replace(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join(format!("{}.{}.{number}", name, std::process::id()));
        let written = (|| {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            for part in parts {
                file.write_all(part)?;
            }
            file.sync_all()?;
            fs::rename(&temporary, self.dir.join(name))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes the files that were written first, until the rest fits. Among them are those of older
    /// versions of the host, and what a crash left half written.
    fn evict(&self, bytes_max: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() && entry.file_name() != KEY_FILE {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if bytes <= bytes_max {
                break;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => bytes -= length,
            }
        }
        Ok(())
    }

    fn load_key(&self) -> anyhow::Result<[u8; KEY_BYTES]> {
        let mut key = [0; KEY_BYTES];
        let path = self.dir.join(KEY_FILE);
        let read = open_no_follow(&path).and_then(|mut file| file.read_exact(&mut key));
        if read.is_ok() {
            return Ok(key);
        }
        getrandom::fill(&mut key).context("the operating system gives no random bytes")?;
        self.replace(KEY_FILE, &[&key])
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(key)
    }
}

fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let metadata = fs::symlink_metadata(dir)?;
    if !metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    if metadata.mode() & 0o777 != 0o700 {
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// A regular file, not what a link points to; never waits, as opening a named pipe would.
fn open_no_follow(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(invalid_data("it is not a regular file"));
    }
    Ok(file)
}

fn invalid_data(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::wasm::fixtures::{Guest, load};
    use crate::wasm::{Engine, EngineConfig};

    fn engine(dir: &Path) -> Engine {
        let config = EngineConfig { cache_dir: Some(dir.to_owned()), ..EngineConfig::default() };
        Engine::new(config).expect("an engine")
    }

    fn cache(dir: &Path) -> Cache {
        let configuration = crate::wasm::engine::configuration();
        Cache::open(dir, &wasmtime::Engine::new(&configuration).expect("an engine")).expect("opens")
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("metadata").mode() & 0o777
    }

    #[test]
    fn gives_back_what_it_was_given() {
        let dir = tempfile::tempdir().expect("a directory");
        let digest = Digest::of(b"module");
        assert_eq!(cache(dir.path()).read(&digest), None);
        cache(dir.path()).write(&digest, b"compiled");
        assert_eq!(cache(dir.path()).read(&digest).as_deref(), Some(&b"compiled"[..]));
        assert_eq!(cache(dir.path()).read(&Digest::of(b"other")), None);
    }

    #[test]
    fn is_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("a/b");
        fs::create_dir_all(&dir).expect("creates");
        let cache = cache(&dir);
        cache.write(&Digest::of(b"module"), b"compiled");
        assert_eq!(mode(&dir), 0o700);
        for entry in fs::read_dir(&dir).expect("lists") {
            assert_eq!(mode(&entry.expect("an entry").path()), 0o600);
        }
    }

    /// What is left of a cached module after something happened to its file.
    fn after(change: impl Fn(&Path)) -> Option<Vec<u8>> {
        let dir = tempfile::tempdir().expect("a directory");
        let digest = Digest::of(b"module");
        let cache = cache(dir.path());
        cache.write(&digest, b"compiled");
        change(&dir.path().join(cache.name(&digest)));
        let found = cache.read(&digest);
        cache.write(&digest, b"again");
        assert_eq!(cache.read(&digest).as_deref(), Some(&b"again"[..]), "it is overwritten");
        found
    }

    #[test]
    fn takes_no_file_that_was_tampered_with() {
        let bytes = TAG_BYTES + b"compiled".len();
        for at in 0..bytes {
            let found = after(|file| {
                let mut content = fs::read(file).expect("reads");
                content[at] ^= 1;
                fs::write(file, content).expect("writes");
            });
            assert_eq!(found, None, "byte {at}");
        }
        for length in 0..bytes {
            let found = after(|file| {
                let content = fs::read(file).expect("reads");
                fs::write(file, &content[..length]).expect("writes");
            });
            assert_eq!(found, None, "cut to {length}");
        }
    }

    #[test]
    fn takes_no_file_of_another_module() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = cache(dir.path());
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        cache.write(&one, b"compiled");
        fs::copy(dir.path().join(cache.name(&one)), dir.path().join(cache.name(&other)))
            .expect("copies");
        assert_eq!(cache.read(&other), None);
    }

    #[test]
    fn follows_no_link() {
        let found = after(|file| {
            let elsewhere = file.with_extension("elsewhere");
            fs::rename(file, &elsewhere).expect("moves");
            symlink(&elsewhere, file).expect("links");
        });
        assert_eq!(found, None);
    }

    #[test]
    fn takes_no_file_under_another_key() {
        let found = after(|file| {
            let dir = file.parent().expect("a directory");
            let other = tempfile::tempdir().expect("a directory");
            let cache = cache(other.path());
            cache.write(&Digest::of(b"module"), b"compiled");
            let name = file.file_name().expect("a name");
            fs::copy(other.path().join(name), dir.join(name)).expect("copies");
        });
        assert_eq!(found, None);
    }

    #[test]
    fn removes_what_was_written_first_when_it_is_full() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = cache(dir.path());
        let modules: Vec<_> = (0..4u8).map(|number| Digest::of(&[number])).collect();
        for (module, age) in modules.iter().zip([40, 30, 20, 10]) {
            cache.write(module, b"compiled");
            let file = File::open(dir.path().join(cache.name(module))).expect("opens");
            let written = file.metadata().and_then(|metadata| metadata.modified()).expect("a time");
            file.set_modified(written - std::time::Duration::from_secs(age)).expect("sets");
        }
        let size = (TAG_BYTES + b"compiled".len()) as u64;
        cache.evict(2 * size).expect("evicts");
        let kept: Vec<_> = modules.iter().map(|module| cache.read(module).is_some()).collect();
        assert_eq!(kept, [false, false, true, true]);
    }

    #[test]
    fn an_engine_compiles_again_what_it_cannot_use() {
        let dir = tempfile::tempdir().expect("a directory");
        let module = Guest::new().component();
        load(&engine(dir.path()), module.clone()).expect("loads");
        let cache = cache(dir.path());
        let file = dir.path().join(cache.name(&Digest::of(&module)));
        let compiled = fs::read(&file).expect("it was kept");
        // Authentic, but not what the compiler made.
        cache.write(&Digest::of(&module), b"not compiled code");
        load(&engine(dir.path()), module.clone()).expect("loads");
        assert!(fs::read(&file).expect("it is kept").len() > compiled.len() / 2);
        load(&engine(dir.path()), module).expect("loads from the cache").describe().expect("runs");
    }
}
