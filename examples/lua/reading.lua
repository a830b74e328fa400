#!/usr/bin/env lua5.4
-- A handler in Lua: decodes the reading of a device, "dev-1,42.5,1678886400".
--
--   faas-worker --handler 'lua5.4 reading.lua'
--
-- dkjson (lua-dkjson in Debian) is one file in Lua. cjson makes floats of all integers and writes 14
-- digits, which is too few for an id.
local json = require 'dkjson'

-- Whether the text is a whole number as JSON writes it, of up to 15 digits: no double loses one.
local function is_whole(text)
    return text == '0' or #text <= 15 and text:find('^[1-9][0-9]*$') ~= nil
end

-- The function: returns a value for dkjson, or raises a text, or a table of status and message.
local function handle(payload)
    local device, value, timestamp = payload:match('^([^,]+),([^,]+),([^,]+)$')
    local whole, fraction = (value or ''):match('^-?([0-9]+)%.?([0-9]*)$')
    if not whole or not is_whole(whole) or not is_whole(timestamp) or #fraction > 15
        or value:find('%.$') then
        error({ status = 422, message = 'expected device,value,timestamp' })
    end
    return { device = device, value = tonumber(value), timestamp = tonumber(timestamp) }
end

-- ---- The loop, which needs no change --------------------------------------------------------------

local function answer(id, payload)
    local is_done, outcome = pcall(function()
        local result = handle(payload)
        return json.encode({ id = id, result = result == nil and json.null or result })
    end)
    if is_done then
        return outcome
    end
    if type(outcome) ~= 'table' then
        io.stderr:write(tostring(outcome), '\n')
        outcome = { status = 500, message = tostring(outcome) }
    end
    return json.encode({ id = id, error = outcome })
end

local function write(line)
    io.stdout:write(line, '\n')
    io.stdout:flush()
end

-- Output of the function goes to the log, and never between the replies.
function print(...)
    for _, value in ipairs({ ... }) do
        io.stderr:write(tostring(value), '\t')
    end
    io.stderr:write('\n')
end

-- Ids are repeated, and each reply is flushed before the next request is read: the worker may write
-- requests ahead of time.
write('{"ready":true,"concurrency":1}')
for line in io.lines() do
    local request = json.decode(line)
    write(answer(request.id, request.payload))
end
