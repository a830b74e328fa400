# The function in a process of puma, without a framework.

require 'json'
require_relative 'function'

run(lambda do |environment|
  request = JSON.parse(environment['rack.input'].read)
  body = JSON.generate(result: decode(request['payload']))
  headers = { 'content-type' => 'application/json', 'content-length' => body.bytesize.to_s }
  [200, headers, [body]]
end)
