//! What a page says that a command prints: where a block of ```` ```json ```` follows, it has that shape, the same keys
//! with values of the same kind.

use serde_json::{Value, json};

/// Returns whether one has the keys and the kinds of values of the other; `null` is of every kind.
pub(super) fn fits(found: &Value, shape: &Value) -> bool {
    match (found, shape) {
        (Value::Array(found), Value::Array(shapes)) => {
            shapes.is_empty() || found.iter().all(|found| shapes.iter().any(|shape| fits(found, shape)))
        }
        (Value::Object(found), Value::Object(shape)) => {
            found.keys().eq(shape.keys())
                && found.iter().all(|(key, found)| fits(found, &shape[key]))
                && found.get("event") == shape.get("event")
        }
        (found, shape) => {
            let same_kind = std::mem::discriminant(found) == std::mem::discriminant(shape);
            same_kind || found.is_null() || shape.is_null()
        }
    }
}

/// Reads the JSON documents of a text.
pub(super) fn documents(text: &str) -> serde_json::Result<Vec<Value>> {
    serde_json::Deserializer::from_str(text).into_iter().collect()
}

/// Returns the documents of the `json` block that follows a command.
pub(super) fn after(command: &str, text: &str) -> Vec<Value> {
    let console = format!("```console\n$ {command}\n```\n\n```json\n");
    let Some((_, block)) = text.split_once(&console) else { return Vec::new() };
    documents(block.split("```").next().unwrap()).unwrap()
}

#[test]
fn only_the_same_keys_and_kinds_fit() {
    let shape = json!({ "a": 1, "b": [{ "event": "x" }, { "event": "y", "more": "" }], "c": null });
    for (found, expected) in [
        (json!({ "a": 2, "b": [], "c": "" }), true),
        (json!({ "a": null, "b": [{ "event": "y", "more": "m" }], "c": 3 }), true),
        (json!({ "a": "2", "b": [], "c": "" }), false),
        (json!({ "a": 2, "b": [] }), false),
        (json!({ "a": 2, "b": [], "c": "", "d": 1 }), false),
        (json!({ "a": 2, "b": [{ "event": "x", "more": "m" }], "c": 1 }), false),
    ] {
        assert_eq!(fits(&found, &shape), expected, "{found}");
    }
}
