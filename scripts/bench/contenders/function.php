<?php
// The function of the comparison in PHP, for handler.php and fpm.php: a reading of a device,
// `id,value,timestamp`.

function decode(string $payload): array
{
    $fields = explode(',', $payload, 4);
    if (count($fields) < 3 || !is_numeric($fields[1]) || !is_numeric($fields[2])) {
        return [
            'handler' => 'decoder_type_a',
            'error' => "Invalid data format. Expected 'id,value,timestamp'.",
            'original_data' => $payload,
            'status' => 'decoding_failed',
        ];
    }
    return [
        'handler' => 'decoder_type_a',
        'device_id' => $fields[0],
        'metric_value' => (float) $fields[1],
        'timestamp' => (int) $fields[2],
        'status' => 'decoded_successfully',
    ];
}
