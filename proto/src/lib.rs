//! Stead's own protobuf files, generated at build time without protoc.

/// A `google.protobuf.FileDescriptorSet` of everything in this crate.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod admin {
    pub mod v1 {
        tonic::include_proto!("stead.admin.v1");
    }
}

pub mod workflow {
    pub mod v1 {
        tonic::include_proto!("stead.workflow.v1");
    }
}

pub mod grpc {
    pub mod health {
        pub mod v1 {
            tonic::include_proto!("grpc.health.v1");
        }
    }

    pub mod reflection {
        pub mod v1 {
            tonic::include_proto!("grpc.reflection.v1");
        }

        pub mod v1alpha {
            tonic::include_proto!("grpc.reflection.v1alpha");
        }
    }
}

pub mod google {
    pub mod api {
        tonic::include_proto!("google.api");
    }
}
