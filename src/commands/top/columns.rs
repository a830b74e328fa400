//! Columns of the table of processes: their titles, widths and cells, and the choice for a width.

use super::numbers::{duration, size};
use super::report::ProcessRow;

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Process,
    Pid,
    State,
    Working,
    Request,
    Served,
    Restarts,
    Memory,
    Cpu,
    Age,
    Stderr,
}

use Column::{Age, Cpu, Memory, Pid, Request, Restarts, Served, State, Stderr, Working};

/// All columns, from left to right.
const ALL: [Column; 11] = [
    Column::Process,
    Pid,
    State,
    Working,
    Request,
    Served,
    Restarts,
    Memory,
    Cpu,
    Age,
    Stderr,
];

/// Columns in the order in which a narrow terminal loses them. The others always stay.
const LOST_FIRST: [Column; 8] = [Stderr, Restarts, Age, Served, Cpu, Memory, Request, Pid];

impl Column {
    fn title(self) -> &'static str {
        match self {
            Column::Process => "PROCESS",
            Pid => "PID",
            State => "STATE",
            Working => "WORKING",
            Request => "REQUEST",
            Served => "SERVED",
            Restarts => "RESTARTS",
            Memory => "MEMORY",
            Cpu => "CPU%",
            Age => "AGE",
            Stderr => "LAST STDERR",
        }
    }

    fn width(self) -> usize {
        match self {
            Column::Process | Pid | Working | Memory => 7,
            State | Served | Restarts => 8,
            Request => 16,
            Cpu | Age => 6,
            Stderr => 11,
        }
    }

    /// The text for a process, with the share of a CPU that it uses, in per cent.
    fn cell(self, process: &ProcessRow, cpu: Option<f64>) -> String {
        let text = match self {
            Column::Process => Some(process.process.to_string()),
            Pid => Some(process.pid.to_string()),
            State => Some(process.state.clone()),
            Working => process.working_seconds.map(duration),
            Request => process.request_id.clone(),
            Served => Some(process.served.to_string()),
            Restarts => Some(process.restarts.to_string()),
            Memory => process.resident_bytes.map(size),
            Cpu => cpu.map(|cpu| format!("{cpu:.1}")),
            Age => Some(duration(process.age_seconds)),
            Stderr => process.last_stderr_seconds.map(duration),
        };
        text.unwrap_or_else(|| "-".to_owned())
    }
}

/// The columns that fit into a width, the least important ones left out.
pub(super) fn fitting(width: usize) -> Vec<Column> {
    let mut columns = ALL.to_vec();
    for lost in LOST_FIRST {
        let taken: usize = columns.iter().map(|column| column.width() + 1).sum();
        if taken <= width + 1 {
            break;
        }
        columns.retain(|column| *column != lost);
    }
    columns
}

/// The line of titles.
pub(super) fn titles(columns: &[Column]) -> String {
    row(columns, |column| column.title().to_owned())
}

/// The line of a process.
pub(super) fn line(columns: &[Column], process: &ProcessRow, cpu: Option<f64>) -> String {
    row(columns, |column| column.cell(process, cpu))
}

/// Cells side by side: words to the left of their column, numbers to the right. A cell longer than
/// its column is cut.
fn row(columns: &[Column], cell: impl Fn(Column) -> String) -> String {
    let cells = columns.iter().map(|column| {
        let width = column.width();
        let text: String = cell(*column).chars().take(width).map(plain).collect();
        match column {
            State | Request => format!("{text:<width$}"),
            Column::Process | Pid | Working | Served | Restarts | Memory | Cpu | Age | Stderr => {
                format!("{text:>width$}")
            }
        }
    });
    cells.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

/// A character that a terminal shows and does not obey.
pub(super) fn plain(character: char) -> char {
    match character.is_control() {
        true => '?',
        false => character,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_terminals_lose_the_least_important_columns() {
        for (width, lost) in [
            (200, &[][..]),
            (101, &[]),
            (100, &[Stderr]),
            (80, &[Stderr, Restarts]),
            (20, &LOST_FIRST),
        ] {
            let expected: Vec<Column> = ALL
                .into_iter()
                .filter(|column| !lost.contains(column))
                .collect();
            assert_eq!(fitting(width), expected, "{width}");
            let fits = titles(&expected).len() <= width || lost.len() == LOST_FIRST.len();
            assert!(fits, "{width}");
        }
    }
}
