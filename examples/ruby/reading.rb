#!/usr/bin/env ruby
# A handler in Ruby: decodes the reading of a device, "dev-1,42.5,1678886400".
#
#   faas-worker --handler 'ruby reading.rb'
require 'json'

# Numbers as JSON writes them, of up to 15 digits: no double loses one of these.
READING = /\A([^,]+),(-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?),(0|[1-9][0-9]{0,14})\z/

class Refused < StandardError
  attr_reader :status

  def initialize(status, message)
    super(message)
    @status = status
  end
end

# The function: returns a value for JSON.generate, or raises.
def handle(payload)
  reading = READING.match(payload) or raise Refused.new(422, 'expected device,value,timestamp')
  device, value, timestamp = reading.captures
  { device: device, value: value.to_f, timestamp: timestamp.to_i }
end

# ---- The loop, which needs no change ----------------------------------------------------------------

def answer(id, payload)
  JSON.generate({ id: id, result: handle(payload) })
rescue Refused => e
  JSON.generate({ id: id, error: { message: e.message, status: e.status } })
rescue StandardError => e
  warn e.full_message
  JSON.generate({ id: id, error: { message: e.message, status: 500 } })
end

# UTF-8 under every locale.
$stdin.set_encoding(Encoding::UTF_8)
replies = $stdout.dup.set_encoding(Encoding::UTF_8)
replies.sync = true
# Output of the function goes to the log, and never between the replies.
$stdout = $stderr

# Ids are repeated, and each reply is written before the next request is read: the worker may write
# requests ahead of time.
replies.puts '{"ready":true,"concurrency":1}'
$stdin.each_line do |line|
  request = JSON.parse(line)
  replies.puts answer(request['id'], request['payload'])
end
