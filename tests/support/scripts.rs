//! The scripts in the YAML of a pipeline: `run` of GitHub's steps, and what GitLab lists under `script`.

/// Returns them in their order, each as the shell would see it.
pub(crate) fn of(yaml: &str) -> Vec<String> {
    let mut scripts = Vec::new();
    let lines: Vec<_> = yaml.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let key = line.trim_start_matches([' ', '-']);
        let column = line.len() - key.len();
        let is_below = |line: &&&str| line.trim().is_empty() || line.len() - line.trim_start().len() > column;
        let below = lines[at + 1..].iter().take_while(is_below).map(|line| line.trim_start());
        match key.strip_prefix("run: ") {
            Some("|") => scripts.push(below.collect::<Vec<_>>().join("\n")),
            Some(run) => scripts.push(run.to_owned()),
            None if key == "script:" => {
                scripts.extend(below.filter_map(|line| line.strip_prefix("- ")).map(str::to_owned));
            }
            None => {}
        }
    }
    scripts
}

/// Returns whether a script has expressions that GitHub's runner replaces before the shell sees them.
pub(crate) fn is_for_github(script: &str) -> bool {
    script.contains("${{")
}
