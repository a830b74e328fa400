#!/usr/bin/env Rscript
# A handler in R: decodes the reading of a device, "dev-1,42.5,1678886400".
#
#   faas-worker --handler 'Rscript reading.R'
#
# Needs jsonlite (r-cran-jsonlite in Debian). No text of R holds U+0000, so a payload with it is refused.
library(jsonlite)

# Numbers as JSON writes them, of up to 15 digits: no double loses one of these.
READING <- "^[^,]+,-?(0|[1-9][0-9]{0,14})([.][0-9]{1,15})?,(0|[1-9][0-9]{0,14})\\z"

refuse <- function(status, message) {
  stop(structure(list(message = message, call = NULL, status = status),
                 class = c("refused", "error", "condition")))
}

# The function: returns a value for toJSON, or stops.
handle <- function(payload) {
  fields <- strsplit(payload, ",", fixed = TRUE)[[1]]
  if (!grepl(READING, payload, perl = TRUE)) {
    refuse(422, "expected device,value,timestamp")
  }
  list(device = fields[1], value = as.numeric(fields[2]), timestamp = as.numeric(fields[3]))
}

# ---- The loop, which needs no change ---------------------------------------------------------------

json <- function(value) toJSON(value, auto_unbox = TRUE, digits = I(15), null = "null")

answer <- function(line) {
  tryCatch({
    # Without the escaped backslashes, \u0000 is nothing but an escape.
    escapes <- gsub("\\\\", "", line, fixed = TRUE, useBytes = TRUE)
    if (grepl("\\u0000", escapes, fixed = TRUE, useBytes = TRUE)) {
      refuse(422, "U+0000 in the payload")
    }
    paste0('"result":', json(handle(parse_json(line)$payload)))
  }, refused = function(error) {
    paste0('"error":', json(list(message = conditionMessage(error), status = error$status)))
  }, error = function(error) {
    message("Error: ", conditionMessage(error))
    paste0('"error":', json(list(message = conditionMessage(error), status = 500)))
  })
}

# Bytes as they are: UTF-8 under every locale. message() writes to the log; print() would write
# between the replies, where it is logged as well.
write <- function(line) {
  writeLines(line, stdout(), useBytes = TRUE)
  flush(stdout())
}

# Ids are repeated, and each reply is flushed before the next request is read: the worker may write
# requests ahead of time.
write('{"ready":true,"concurrency":1}')
requests <- file("stdin", open = "r")
while (length(line <- readLines(requests, n = 1, encoding = "UTF-8", warn = FALSE)) > 0) {
  # The id stays text: R writes large numbers with fewer digits. The worker promises its place.
  id <- sub('^\\{"id":([0-9]+).*', "\\1", line, useBytes = TRUE)
  write(paste0('{"id":', id, ",", answer(line), "}"))
}
