fn main() -> Result<(), stead_build::Error> {
    let files = ["model", "value", "action", "reader", "workflow"]
        .map(|name| format!("stead/tck/v1/{name}.proto"));
    stead_build::compile(&files, &["proto"])
}
