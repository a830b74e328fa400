# The function in a process behind the worker: handler.rb [CONCURRENCY]. Without a concurrency
# nothing is announced, and the process is given one request at a time.

require 'json'
require_relative 'function'

$stdout.sync = true
$stdout.write(%({"ready":true,"concurrency":#{ARGV[0]}}\n)) if ARGV[0]
$stdin.each_line do |line|
  request = JSON.parse(line)
  $stdout.write("#{JSON.generate(id: request['id'], result: decode(request['payload']))}\n")
end
