# The function of the comparison in Ruby, for handler.rb and config.ru: a reading of a device,
# `id,value,timestamp`.

def decode(payload)
  device_id, value, timestamp = payload.split(',', 4)
  {
    handler: 'decoder_type_a',
    device_id: device_id,
    metric_value: Float(value),
    timestamp: Integer(timestamp),
    status: 'decoded_successfully'
  }
rescue ArgumentError, TypeError
  {
    handler: 'decoder_type_a',
    error: "Invalid data format. Expected 'id,value,timestamp'.",
    original_data: payload,
    status: 'decoding_failed'
  }
end
