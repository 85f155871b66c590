//! A module as a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;

use crate::cli::failed::Failed;
use crate::cli::units;
use crate::words::limits;

pub struct ModuleFile {
    /// As it was given.
    pub path: String,
    /// The last part of it, what the host calls the module.
    pub name: String,
    pub bytes: Bytes,
}

impl ModuleFile {
    pub fn read(path: &Path) -> Result<Self, Failed> {
        let shown = path.display().to_string();
        let cannot = |reason: String| Failed::local(format!("cannot read {shown}: {reason}"));
        let metadata = std::fs::metadata(path).map_err(|error| cannot(error.to_string()))?;
        if metadata.is_dir() {
            return Err(cannot(
                "it is a folder; build it with `stead build`, or name a file".into(),
            ));
        }
        if !metadata.is_file() {
            return Err(cannot("it is a device, a pipe or a socket; name a file".into()));
        }
        let max = limits::MODULE_BYTES_MAX as u64;
        let too_large = |size: &str| {
            let max = units::size(max);
            Failed::refused(format!("{shown} has {size}; a module may have {max}"))
        };
        let size = metadata.len();
        if size > max {
            return Err(too_large(&units::size(size)));
        }
        // It may grow while it is read, and what is in /proc claims to be empty.
        let mut bytes = Vec::with_capacity(size as usize);
        File::open(path)
            .and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
            .map_err(|error| cannot(error.to_string()))?;
        if bytes.len() as u64 > max {
            return Err(too_large(&format!("more than {}", units::size(max))));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(Self { path: shown, name: name.unwrap_or_default(), bytes: bytes.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failed::Exit;

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let failed = ModuleFile::read(Path::new("no/such/cart.wasm")).err().unwrap();
        assert_eq!(failed.exit, Exit::Failed);
        assert!(failed.message.starts_with("cannot read no/such/cart.wasm: "), "{failed}");
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_before_it_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(limits::MODULE_BYTES_MAX as u64 + 1).unwrap();
        let failed = ModuleFile::read(file.path()).err().unwrap();
        assert_eq!(failed.exit, Exit::Refused);
        assert!(failed.message.ends_with("a module may have 32 MiB"), "{failed}");
    }

    #[test]
    fn what_has_no_end_is_refused_before_it_is_read() {
        let failed = ModuleFile::read(Path::new("/dev/zero")).err().unwrap();
        assert!(failed.message.ends_with("name a file"), "{failed}");
    }

    #[test]
    fn a_folder_says_how_to_make_a_module_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let failed = ModuleFile::read(folder.path()).err().unwrap();
        assert!(failed.message.contains("stead build"), "{failed}");
    }
}
