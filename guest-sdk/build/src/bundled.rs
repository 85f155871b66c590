//! The option files that a guest's .proto may import without having a copy.

use protox::Error;
use protox::file::{File, FileResolver};

const FILES: &[(&str, &str)] = &[
    ("stead/options.proto", include_str!("../../../proto/stead/options.proto")),
    (
        "stead/workflow/v1/workflow.proto",
        include_str!("../../../proto/stead/workflow/v1/workflow.proto"),
    ),
    ("google/api/annotations.proto", include_str!("../../../proto/google/api/annotations.proto")),
    ("google/api/http.proto", include_str!("../../../proto/google/api/http.proto")),
    ("google/api/httpbody.proto", include_str!("../../../proto/google/api/httpbody.proto")),
    ("cloudstate/entity_key.proto", include_str!("../../../proto/cloudstate/entity_key.proto")),
    ("cloudstate/eventing.proto", include_str!("../../../proto/cloudstate/eventing.proto")),
];

pub struct Bundled;

impl FileResolver for Bundled {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        match FILES.iter().find(|file| file.0 == name) {
            Some((name, source)) => File::from_source(name, source),
            None => Err(Error::file_not_found(name)),
        }
    }
}
