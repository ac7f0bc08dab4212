//! The text of a list as lines with values: YAML, or JSON with one value in each line.
//!
//! Values are texts, as they are written: a tag `1.10` is no number. What has no meaning in a list, aliases and tags, is
//! refused, so nothing grows larger than the file.

use std::fmt;

use longshore::{Error, Result};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(String, Node)>),
}

/// What is wrong with the text itself, and in which line.
pub(super) type Broken = (usize, Error);

/// Reads the values of a text: the documents of YAML, or lines of JSON.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, Broken> {
    if text.trim_start().starts_with('{') {
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        return lines.map(|(line, text)| json(line, text)).collect();
    }
    yaml(text)
}

/// A list or map that is not at its end.
struct Open {
    line: usize,
    value: Value,
    /// The key that waits for its value.
    key: Option<String>,
}

fn yaml(text: &str) -> Result<Vec<Node>, Broken> {
    let mut documents = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            (error.marker().line(), Error::usage(format!("this is no YAML: {}", error.info())))
        })?;
        let line = span.start.line();
        let refuse = |what: &str| Err((line, Error::usage(format!("{what} mean nothing in a list"))));
        let finished = match event {
            Event::Alias(_) => return refuse("aliases"),
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return refuse("YAML's tags (`!…`)");
            }
            Event::Scalar(text, style, ..) => {
                let is_nothing = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
                let text = if is_nothing { String::new() } else { text.into_owned() };
                Node { line, value: Value::Text(text) }
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() == DEPTH => {
                return Err((line, Error::usage("lists within lists are too deep")));
            }
            Event::SequenceStart(..) => {
                open.push(Open { line, value: Value::List(Vec::new()), key: None });
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open { line, value: Value::Map(Vec::new()), key: None });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { line, value, .. }) = open.pop() else { continue };
                Node { line, value }
            }
            _ => continue,
        };
        match open.last_mut() {
            None => documents.push(finished),
            Some(open) => open.take(finished)?,
        }
    }
    Ok(documents)
}

impl Open {
    /// Takes in what stands in it.
    fn take(&mut self, node: Node) -> Result<(), Broken> {
        match (&mut self.value, self.key.take(), node.value) {
            (Value::List(nodes), _, value) => nodes.push(Node { line: node.line, value }),
            (Value::Map(pairs), Some(key), value) => pairs.push((key, Node { line: node.line, value })),
            (_, None, Value::Text(key)) => self.key = Some(key),
            _ => return Err((node.line, Error::usage("a key is a word"))),
        }
        Ok(())
    }
}

fn json(line: usize, text: &str) -> Result<Node, Broken> {
    let mut json = serde_json::Deserializer::from_str(text);
    let node = At(line).deserialize(&mut json).and_then(|node| json.end().map(|()| node));
    node.map_err(|error| (line, Error::usage("this line is no JSON value").because(error)))?
}

/// Reads the JSON in this line as it stands there: a map of serde's would keep one of two equal keys.
#[derive(Clone, Copy)]
struct At(usize);

impl At {
    fn node(self, value: Value) -> Node {
        Node { line: self.0, value }
    }

    fn no_text(self, value: impl fmt::Display) -> Result<Node, Broken> {
        Err((self.0, Error::usage(format!("`{value}` is no text")).with_hint("put it in quotes")))
    }
}

impl<'de> DeserializeSeed<'de> for At {
    type Value = Result<Node, Broken>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At {
    type Value = Result<Node, Broken>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Ok(self.node(Value::Text(text.to_owned()))))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Ok(self.node(Value::Text(String::new()))))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(self.no_text(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.no_text(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.no_text(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(self.no_text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = values.next_element_seed(self)? {
            nodes.push(node);
        }
        let nodes: Result<_, _> = nodes.into_iter().collect();
        Ok(nodes.map(|nodes| self.node(Value::List(nodes))))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = values.next_key()? {
            pairs.push(values.next_value_seed(self)?.map(|node| (key, node)));
        }
        let pairs: Result<_, _> = pairs.into_iter().collect();
        Ok(pairs.map(|pairs| self.node(Value::Map(pairs))))
    }
}

/// An entry is a map in a list, and holds lists.
const DEPTH: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: usize, text: &str) -> Node {
        Node { line, value: Value::Text(text.to_owned()) }
    }

    #[test]
    fn values_are_texts_as_they_are_written() {
        let nodes = parse("# a list\n- source: a.tar\n  tags: [1.10, yes, \"\", ~]\n- x\n").unwrap();
        let tags = vec![text(3, "1.10"), text(3, "yes"), text(3, ""), text(3, "")];
        let map = Value::Map(vec![
            ("source".to_owned(), text(2, "a.tar")),
            ("tags".to_owned(), Node { line: 3, value: Value::List(tags) }),
        ]);
        let list = vec![Node { line: 2, value: map }, text(4, "x")];
        assert_eq!(nodes, [Node { line: 2, value: Value::List(list) }]);
    }

    #[test]
    fn lines_of_json_are_values() {
        let nodes = parse("{\"source\":\"a\\u00e4\"}\n\n{\"tags\":[\"1\"]}\n").unwrap();
        let map = |key: &str, node: Node| Value::Map(vec![(key.to_owned(), node)]);
        assert_eq!(nodes[0], Node { line: 1, value: map("source", text(1, "aä")) });
        let tags = Node { line: 3, value: Value::List(vec![text(3, "1")]) };
        assert_eq!(nodes[1], Node { line: 3, value: map("tags", tags) });
        let Value::Map(pairs) = &parse(r#"{"b":null,"a":"1","b":"2"}"#).unwrap()[0].value else { panic!() };
        let pair = |key: &str, value: &str| (key.to_owned(), text(1, value));
        assert_eq!(pairs, &[pair("b", ""), pair("a", "1"), pair("b", "2")]);
    }

    #[test]
    fn what_means_nothing_is_refused_where_it_stands() {
        let deep = format!("- a\n- {}", "[".repeat(100));
        for (broken, line, words) in [
            ("- a\n- *x\n", 2, ""),
            ("- &x a\n- *x\n", 2, "aliases"),
            ("- a\n- !!int 3\n", 2, "tags"),
            ("- a: b\n  ? [x]\n  : y\n", 2, "a key is a word"),
            ("- a\n- \"b\n", 2, "no YAML"),
            (&deep, 2, "too deep"),
            ("{\"a\":\"b\"}\n{\"a\":1}", 2, "`1` is no text"),
            ("{\"a\":\"b\"}\n{\"a\":[\"b\",true]}", 2, "`true` is no text"),
            ("{\"a\":\"b\"}\n{\"a\":{\"b\":-1.5}}", 2, "`-1.5` is no text"),
            ("{\"a\":\"b\"} {}", 1, "no JSON"),
            ("{\"a\":\"b\"}\n{", 2, "no JSON"),
        ] {
            let (found, error) = parse(broken).unwrap_err();
            assert!(found == line && error.message().contains(words), "{broken}: {found}, {error:?}");
        }
    }
}
