//! `gsutil cp`, `gcloud storage cp`, `bq load` and `bq query`.

use serde_json::json;

use super::{Commands, Line, parse};
use crate::preflight::dataflow::{download, table, upload};
use crate::preflight::shell::Word;
use crate::preflight::{Implied, object};

// === impl Commands ===

impl Commands<'_> {
    pub(super) fn copy(&mut self, words: &[Word], line: u32) -> Result<(), String> {
        let parsed = parse(words)?;
        match parsed.words.first().map(String::as_str) {
            Some("cp") => self.cp(&parsed, 1, line),
            _ => Err("this command of gsutil is not understood".to_owned()),
        }
    }

    /// `cp FROM… TO`
    pub(super) fn cp(&mut self, parsed: &Line, skip: usize, line: u32) -> Result<(), String> {
        parsed.only(&["project"])?;
        if ["r", "recursive"].iter().any(|switch| parsed.switches.contains(*switch)) {
            return Err("which files a folder holds is not known".to_owned());
        }
        let names = parsed.words.get(skip..).unwrap_or_default();
        let Some((to, from)) = names.split_last().filter(|(_, from)| !from.is_empty()) else {
            return Err("source or destination is missing".to_owned());
        };
        let mut requests = Vec::new();
        for from in from {
            if [from, to].iter().any(|name| name.contains(['*', '?', '['])) {
                return Err("which files a pattern stands for is not known".to_owned());
            }
            let file = from.rsplit('/').next().unwrap_or_default();
            match (from.starts_with("gs://"), to.starts_with("gs://")) {
                (true, true) => return Err("copies from bucket to bucket are not understood".to_owned()),
                (true, false) => {
                    let (bucket, object) = object(from).ok_or("it names no object")?;
                    requests.push(download(self.by.clone(), bucket, object, line));
                }
                (false, true) => {
                    let to = if to.ends_with('/') || object(to).is_none() {
                        format!("{}/{file}", to.trim_end_matches('/'))
                    } else {
                        to.clone()
                    };
                    let (bucket, object) = object(&to).ok_or("it names no object")?;
                    requests.push(upload(self.by.clone(), bucket, object, line));
                }
                (false, false) => return Err("neither source nor destination is in Cloud Storage".to_owned()),
            }
        }
        self.plan.requests.extend(requests);
        Ok(())
    }

    /// `bq load TABLE gs://…`, `bq query SQL`
    pub(super) fn bq(&mut self, words: &[Word], line: u32) -> Result<(), String> {
        let parsed = parse(words)?;
        let known = [
            "project_id",
            "source_format",
            "location",
            "use_legacy_sql",
            "nouse_legacy_sql",
            "skip_leading_rows",
        ];
        parsed.only(&known)?;
        let all: Vec<&str> = parsed.words.iter().map(String::as_str).collect();
        let project = parsed.flag("project_id").map(str::to_owned).or_else(|| self.project.clone());
        let project = project.ok_or("in which project is not said: give --project");
        let (what, configuration, name) = match all.as_slice() {
            ["load", to, from @ ..]
                if !from.is_empty() && from.iter().all(|from| from.starts_with("gs://")) =>
            {
                let full = match to.contains(':') {
                    true => (*to).to_owned(),
                    false => format!("{}:{to}", project.clone()?),
                };
                let [of, dataset, table] = table(&full).ok_or("the table is not `project:dataset.table`")?;
                let sources: Vec<&str> = from.iter().flat_map(|from| from.split(',')).collect();
                let destination = json!({"projectId": of, "datasetId": dataset, "tableId": table});
                let load = json!({"sourceUris": sources, "destinationTable": destination});
                (
                    "load a table",
                    json!({"load": load}),
                    format!("projects/{of}/datasets/{dataset}/tables/{table}"),
                )
            }
            ["query", sql @ ..] if !sql.is_empty() => (
                "run a query",
                json!({"query": {"query": sql.join(" ")}}),
                "any that the SQL names".to_owned(),
            ),
            _ => return Err("this command of bq is not understood".to_owned()),
        };
        let url = format!("https://bigquery.googleapis.com/bigquery/v2/projects/{}/jobs", project?);
        let request =
            Implied::new(what, self.by.clone(), "POST", url).with(json!({"configuration": configuration}));
        self.plan.requests.push(request.naming("table", &name).at(line));
        Ok(())
    }
}
