fn main() -> Result<(), stead_build::Error> {
    stead_build::Config::new().file("stead/workflow/v1/workflow.proto").messages_only().compile()
}
