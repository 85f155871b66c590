use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    for (includes, folder) in [("proto", ""), ("proto-no-key", "no-key")] {
        let out_dir = out_dir.join(folder);
        fs::create_dir_all(&out_dir)?;
        stead_build::Config::new()
            .file("misbehaving/v1/misbehaving.proto")
            .include(includes)
            .out_dir(out_dir)
            .messages_only()
            .compile()?;
    }
    Ok(())
}
