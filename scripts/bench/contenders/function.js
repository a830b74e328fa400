// The function of the comparison in Node, for handler.js and cluster.js: a reading of a device,
// `id,value,timestamp`.
'use strict';

exports.decode = (payload) => {
    const [deviceId, value, timestamp] = payload.split(',', 3);
    const metricValue = Number.parseFloat(value);
    if (timestamp === undefined || !Number.isFinite(metricValue)) {
        return {
            handler: 'decoder_type_a',
            error: "Invalid data format. Expected 'id,value,timestamp'.",
            original_data: payload,
            status: 'decoding_failed',
        };
    }
    return {
        handler: 'decoder_type_a',
        device_id: deviceId,
        metric_value: metricValue,
        timestamp: Number.parseInt(timestamp, 10),
        status: 'decoded_successfully',
    };
};
