use super::*;

#[test]
fn play() {
    for file in std::env::var("FILES").unwrap_or_default().split_whitespace() {
        match Definition::parse(&std::fs::read(file).unwrap()) {
            Ok(definition) => {
                println!("{file}: {}", definition.digest());
                let text = definition.canonical();
                println!("{text}");
                assert_eq!(Definition::parse(text.as_bytes()).map_err(|p| p.describe("canonical")), Ok(definition));
            }
            Err(problems) => println!("{}", problems.describe(file)),
        }
    }
}
