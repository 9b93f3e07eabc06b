//! The description of the interface as an OpenAPI 3.1 document.
//!
//! Rule: statuses and codes come from the table of problems, so that the document cannot lack one.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::content::RECORDS;
use super::problem::Problem;

/// Returns the document.
pub fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "courier serve",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Events over HTTP, published to Apache Kafka. Keys of requests (idempotency-key, or the event's \
                            source and id) are known to one instance: send a client's requests to one instance, for example \
                            by a hash of the key.",
        },
        "paths": {
            "/v1/events": { "post": events() },
            "/v1/topics/{topic}": { "post": record() },
            "/dlq": { "get": operator("listDeadLetters", "List dead letters in the order of their arrival", page(), None) },
            "/dlq/stats": { "get": operator("countDeadLetters", "Count the dead letters of each store", vec![], None) },
            "/dlq/purge": { "post": operator("purgeDeadLetters", "Remove dead letters", vec![], Some("Purge")) },
            "/dlq/replay": { "post": operator("replayDeadLetters", "Publish dead letters again", vec![], Some("Replay")) },
            "/dlq/{id}": {
                "get": operator("showDeadLetter", "Show a dead letter", vec![id()], None),
                "delete": operator("removeDeadLetter", "Remove a dead letter", vec![id()], None),
            },
            "/dlq/{id}/replay": {
                "post": operator("replayDeadLetter", "Publish a dead letter again", vec![id()], Some("Replay")),
            },
            "/spool": { "get": operator("countSpool", "Count the events in the spool", vec![], None) },
            "/spool/events": { "get": operator("listSpool", "List the events in the spool", spool(), None) },
        },
        "components": {
            "schemas": all_schemas(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "password": { "type": "http", "scheme": "basic" },
                "certificate": { "type": "mutualTLS" },
            },
        },
        "security": [{}, { "token": [] }, { "password": [] }, { "certificate": [] }],
    })
}

fn events() -> Value {
    let event = json!({ "$ref": "#/components/schemas/Event" });
    let parameters = [
        query("partial", "Publish the valid events of an array if others are invalid", json!({ "type": "boolean" })),
        query("stream", "Send the results of NDJSON while its lines arrive", json!({ "type": "boolean" })),
        header(
            "ce-specversion",
            "Makes the body the data of a CloudEvent, whose attributes are headers",
            json!({ "const": "1.0" }),
        ),
    ];
    json!({
        "operationId": "publishEvents",
        "summary": "Publish one event or several",
        "parameters": common().into_iter().chain(parameters).collect::<Vec<_>>(),
        "requestBody": { "required": true, "content": {
            "application/json": { "schema": { "oneOf": [event, { "type": "array", "items": event }] } },
            "application/x-ndjson": { "schema": { "type": "string", "description": "An event in each line" } },
            "application/cloudevents+json": { "schema": { "$ref": "#/components/schemas/CloudEvent" } },
        } },
        "responses": responses(true),
    })
}

fn record() -> Value {
    let topic = json!({ "name": "topic", "in": "path", "required": true,
        "schema": { "type": "string", "pattern": "^[a-zA-Z0-9._-]{1,249}$" } });
    let parameters = [
        topic,
        query("key", "The record's key", json!({ "type": "string" })),
        query("partition", "The record's partition", json!({ "type": "integer", "minimum": 0, "maximum": i32::MAX })),
        query("tombstone", "A record without a value", json!({ "type": "boolean" })),
    ];
    let record = json!({ "$ref": "#/components/schemas/Record" });
    json!({
        "operationId": "publishRecord",
        "summary": "Publish the body as the value of a record, or records as JSON",
        "parameters": common().into_iter().chain(parameters).collect::<Vec<_>>(),
        "requestBody": { "required": true, "content": {
            "application/octet-stream": {},
            RECORDS: { "schema": { "oneOf": [record, { "type": "array", "items": record }] } },
        } },
        "responses": responses(true),
    })
}

fn id() -> Value {
    json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string", "format": "uuid" } })
}

fn limit() -> Value {
    query("limit", "The most results", json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 }))
}

fn page() -> Vec<Value> {
    let text = || json!({ "type": "string", "minLength": 1 });
    let time = || json!({ "type": "string", "format": "date-time" });
    vec![
        limit(),
        query("cursor", "The next of an earlier page", text()),
        query("topic", "The topic of the event", text()),
        query("event_type", "The type of the event", text()),
        query("error_code", "Kafka's name of the last error", text()),
        query("key", "The key of the record", text()),
        query("reason", "A text in the reason", text()),
        query("outcome", "Whether the event may be in Kafka", json!({ "enum": ["not_written", "unknown"] })),
        query("retriable", "Whether the cause is temporary", json!({ "type": "boolean" })),
        query("since", "The time of the last attempt, or later", time()),
        query("until", "A time after the last attempt", time()),
    ]
}

fn spool() -> Vec<Value> {
    let offset = query("offset", "Events that the answer leaves out", json!({ "type": "integer", "minimum": 0 }));
    vec![limit(), offset, query("topic", "The topic of the event", json!({ "type": "string", "minLength": 1 }))]
}

/// A route of the second listener.
fn operator(name: &str, summary: &str, parameters: Vec<Value>, body: Option<&str>) -> Value {
    let problem = json!({ "description": "The request failed", "content": {
        "application/problem+json": { "schema": { "$ref": "#/components/schemas/OperatorProblem" } } } });
    let mut operation = json!({
        "operationId": name,
        "summary": summary,
        "description": "On the address of --management.",
        "parameters": parameters,
        "responses": {
            "200": { "description": "The result", "content": { "application/json": { "schema": { "type": "object" } } } },
            "default": problem,
        },
        "security": [{}, { "token": [] }],
    });
    if let Some(schema) = body {
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

/// The schema of a record as JSON.
fn record_schema() -> Value {
    let text = json!({ "type": "string" });
    let one = |name: &str, schema: Value| {
        json!({ "type": "object", "required": [name], "additionalProperties": false,
        "properties": { name: schema } })
    };
    let bytes = json!({ "oneOf": [
        { "type": "null" }, text, one("text", text.clone()), one("base64", text.clone()), one("json", json!({})),
    ] });
    json!({
        "type": "object",
        "required": ["value"],
        "additionalProperties": false,
        "properties": {
            "key": bytes,
            "value": bytes,
            "headers": { "type": "array", "items": { "type": "object", "required": ["name", "value"],
                "additionalProperties": false, "properties": { "name": text, "value": bytes } } },
            "partition": { "type": ["integer", "null"], "minimum": 0, "maximum": i32::MAX },
            "timestamp": { "oneOf": [{ "type": "null" }, { "type": "integer", "minimum": 0 },
                { "type": "string", "format": "date-time" }] },
        },
    })
}

fn operator_schemas() -> [(&'static str, Value); 5] {
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let (switch, time) = (json!({ "type": "boolean" }), json!({ "type": "string", "format": "date-time" }));
    let selection = json!({ "$ref": "#/components/schemas/Selection" });
    let object =
        |properties: Value| json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let criteria = object(json!({
        "ids": texts(), "topics": texts(), "event_types": texts(), "error_codes": texts(), "keys": texts(),
        "reason": { "type": "string" },
        "outcome": { "enum": ["not_written", "unknown"] },
        "retriable": switch, "since": time, "until": time,
    }));
    let replay = object(json!({
        "all": switch, "selection": selection, "verify": switch, "include_unknown": switch, "force": switch,
        "out_of_order": switch, "dry_run": switch,
        "max_replays": { "type": "integer", "minimum": 0 },
        "rate": { "type": "integer", "minimum": 1 },
        "limit": { "type": "integer", "minimum": 0 },
        "to_topic": { "type": "string" },
    }));
    let problem = json!({
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": { "type": { "const": "about:blank" }, "title": { "type": "string" },
            "status": { "type": "integer" }, "detail": { "type": "string" } },
    });
    [
        ("Record", record_schema()),
        ("Selection", criteria),
        ("Purge", object(json!({ "all": switch, "selection": selection }))),
        ("Replay", replay),
        ("OperatorProblem", problem),
    ]
}

/// The parameters of every route for events.
fn common() -> Vec<Value> {
    let id = json!({ "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$" });
    let key = json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$" });
    vec![
        query("ack", "The meaning of an answer of success", json!({ "enum": ["broker", "disk", "memory"] })),
        query(
            "timeout",
            "The time from the end of the body to the answer",
            json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m)$" }),
        ),
        header("idempotency-key", "Names the request, which is published once by one instance", key),
        header("x-request-id", "The id of the request", id.clone()),
        header("x-correlation-id", "The correlation id of events that have none", id),
        header("traceparent", "The trace of events that have none", json!({ "type": "string" })),
    ]
}

fn query(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": schema })
}

fn header(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "header", "description": description, "schema": schema })
}

fn responses(has_many: bool) -> Value {
    let one = json!({ "$ref": "#/components/schemas/Result" });
    let schema = match has_many {
        true => json!({ "oneOf": [one, { "$ref": "#/components/schemas/Results" }] }),
        false => one,
    };
    let success = |description: &str| json!({ "description": description, "content": { "application/json": { "schema": schema } } });
    let mut responses = Map::new();
    responses.insert("200".to_owned(), success("Every event is in the log of every in-sync replica"));
    responses.insert(
        "202".to_owned(),
        success("Every event is accepted: ack says whether it is in Kafka, on disk or in memory"),
    );
    if has_many {
        responses.insert("207".to_owned(), some_succeeded(&schema));
    }
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for problem in Problem::ALL {
        by_status.entry(problem.status()).or_default().push(problem.code());
    }
    for (status, codes) in by_status {
        let content = json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
        let response = json!({ "description": format!("Codes: {}", codes.join(", ")), "content": content });
        responses.insert(status.to_string(), response);
    }
    responses.insert("431".to_owned(), json!({ "description": "The head of the request is too large" }));
    Value::Object(responses)
}

fn all_schemas() -> Value {
    let mut all = schemas();
    for (name, schema) in operator_schemas() {
        all[name] = schema;
    }
    all
}

/// The answer 207: all results, or with stream=true a line for each.
fn some_succeeded(schema: &Value) -> Value {
    json!({
        "description": "Some events succeeded, and some failed. With stream=true: a result in each line, and the counts in the last",
        "content": {
            "application/json": { "schema": schema },
            "application/x-ndjson": { "schema": { "type": "string" } },
        },
    })
}

fn schemas() -> Value {
    let codes: Vec<&str> = Problem::ALL.iter().map(|problem| problem.code()).collect();
    let verdict = json!({ "enum": ["not_written", "unknown"] });
    let text = json!({ "type": "string" });
    json!({
        "Event": {
            "type": "object",
            "required": ["type"],
            "properties": {
                "id": { "type": "string", "minLength": 1 },
                "type": { "type": "string", "minLength": 1 },
                "source": text,
                "version": text,
                "timestamp": { "type": "string", "format": "date-time" },
                "correlation_id": { "type": ["string", "null"] },
                "partition_key": { "type": ["string", "null"] },
                "data": { "type": "object" },
            },
        },
        "CloudEvent": {
            "type": "object",
            "required": ["specversion", "id", "source", "type"],
            "properties": {
                "specversion": { "const": "1.0" },
                "id": { "type": "string", "minLength": 1 },
                "source": { "type": "string", "minLength": 1 },
                "type": { "type": "string", "minLength": 1 },
                "partitionkey": text,
            },
        },
        "Result": {
            "type": "object",
            "properties": {
                "status": { "type": "integer" },
                "ack": { "enum": ["broker", "disk", "memory"] },
                "id": text,
                "topic": text,
                "partition": { "type": "integer" },
                "offset": { "type": "integer" },
                "note": text,
                "code": { "enum": codes },
                "verdict": verdict,
                "detail": text,
                "dead_letter": text,
                "line": { "type": "integer" },
            },
        },
        "Results": {
            "type": "object",
            "required": ["succeeded", "failed", "events"],
            "properties": {
                "succeeded": { "type": "integer" },
                "failed": { "type": "integer" },
                "events": { "type": "array", "items": { "$ref": "#/components/schemas/Result" } },
                "stopped": { "type": "object" },
            },
        },
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "code", "detail", "request_id"],
            "properties": {
                "type": text,
                "title": text,
                "status": { "type": "integer" },
                "code": { "enum": codes },
                "detail": text,
                "verdict": verdict,
                "index": { "type": "integer" },
                "dead_letter": text,
                "retry_after": { "type": "integer" },
                "request_id": text,
                "events": { "type": "array", "items": { "$ref": "#/components/schemas/Result" } },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::dead_letters::{PageQuery, SpoolQuery, read_purge, read_replay};
    use crate::shapes::query::{Query, QueryOf};

    #[test]
    fn document_names_every_status() {
        let document = document();
        for path in ["/v1/events", "/v1/topics/{topic}"] {
            let responses = &document["paths"][path]["post"]["responses"];
            for problem in Problem::ALL {
                let description = responses[problem.status().to_string()]["description"].as_str().unwrap();
                assert!(description.contains(problem.code()), "{path}: {problem:?}");
            }
        }
    }

    #[test]
    fn documented_parameters_are_accepted() {
        let document = document();
        let examples = [("ack", "disk"), ("timeout", "5s"), ("partition", "1")];
        for (path, of) in [("/v1/events", QueryOf::Events), ("/v1/topics/{topic}", QueryOf::Record)] {
            let parameters = document["paths"][path]["post"]["parameters"].as_array().unwrap();
            for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
                let name = parameter["name"].as_str().unwrap();
                let example = examples.iter().find(|(of, _)| *of == name).map_or("true", |(_, example)| example);
                Query::parse(&format!("{name}={example}"), of).unwrap_or_else(|failure| panic!("{path}: {failure:?}"));
            }
        }
    }

    #[test]
    fn operator_routes_accept_their_parameters() {
        let document = document();
        let examples =
            [("limit", "5"), ("cursor", "0.1"), ("outcome", "unknown"), ("retriable", "true"), ("offset", "0")];
        for path in ["/dlq", "/spool/events"] {
            for parameter in document["paths"][path]["get"]["parameters"].as_array().unwrap() {
                let name = parameter["name"].as_str().unwrap();
                let example = examples.iter().find(|(of, _)| *of == name).map(|(_, example)| *example);
                let time = parameter["schema"]["format"].as_str().map(|_| "2024-01-15T10:00:00Z");
                let query = format!("{name}={}", example.or(time).unwrap_or("x"));
                match path {
                    "/dlq" => drop(PageQuery::parse(&query).unwrap()),
                    _ => drop(SpoolQuery::parse(&query).unwrap()),
                }
            }
        }
        for (name, is_replay) in [("Purge", false), ("Replay", true)] {
            let fields = document["components"]["schemas"][name]["properties"].as_object().unwrap();
            for (field, schema) in fields {
                let value = match schema["type"].as_str() {
                    Some("boolean") => json!(false),
                    Some("integer") => json!(1),
                    Some("string") => json!("t"),
                    _ => json!({}),
                };
                let mut body = json!({ "selection": { "topics": ["t"] } });
                if field != "selection" {
                    body[field] = value;
                }
                let body = body.to_string();
                let read = if is_replay {
                    read_replay(body.as_bytes(), None).map(drop)
                } else {
                    read_purge(body.as_bytes()).map(drop)
                };
                read.unwrap_or_else(|error| panic!("{name}.{field}: {error}"));
            }
        }
    }

    #[test]
    fn references_have_their_schema() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
