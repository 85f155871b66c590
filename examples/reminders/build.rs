fn main() -> Result<(), stead_build::Error> {
    stead_build::compile(&["reminders/reminders.proto", "reminders/stored.proto"], &["proto"])
}
