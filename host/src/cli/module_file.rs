//! A module as a file.

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
        let size = metadata.len();
        if size > limits::MODULE_BYTES_MAX as u64 {
            return Err(Failed::refused(format!(
                "{shown} has {}; a module may have {}",
                units::size(size),
                units::size(limits::MODULE_BYTES_MAX as u64)
            )));
        }
        let bytes = std::fs::read(path).map_err(|error| cannot(error.to_string()))?;
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
    fn a_folder_says_how_to_make_a_module_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let failed = ModuleFile::read(folder.path()).err().unwrap();
        assert!(failed.message.contains("stead build"), "{failed}");
    }
}
