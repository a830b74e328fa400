#!/usr/bin/perl
# A handler in Perl: decodes the reading of a device, "dev-1,42.5,1678886400".
#
#   faas-worker --handler 'perl reading.pl'
#
# JSON::PP comes with Perl. Cpanel::JSON::XS (libcpanel-json-xs-perl) has the same methods, and is
# many times as fast for large payloads.
use strict;
use warnings;
use JSON::PP;

# Numbers as JSON writes them, of up to 15 digits: no double loses one of these.
my $READING = qr/\A([^,]+),(-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?),(0|[1-9][0-9]{0,14})\z/;

# The function: returns a value for JSON::PP, or dies with a text, or with a status and a message.
sub handle {
    my ($payload) = @_;
    my ($device, $value, $timestamp) = $payload =~ $READING
        or die { status => 422, message => 'expected device,value,timestamp' };
    # Adding 0 makes a number of a text.
    return { device => $device, value => $value + 0, timestamp => $timestamp + 0 };
}

# ---- The loop, which needs no change ----------------------------------------------------------------

# `utf8` decodes and encodes the bytes of a line, so that no locale and no layer takes part.
my $json = JSON::PP->new->utf8;

sub answer {
    my ($id, $payload) = @_;
    my $reply = eval { $json->encode({ id => $id, result => scalar handle($payload) }) };
    return $reply if defined $reply;
    my $error = $@;
    if (ref $error ne 'HASH') {
        warn $error;
        chomp(my $message = "$error");
        $error = { status => 500, message => $message };
    }
    return $json->encode({ id => $id, error => $error });
}

binmode STDIN;
binmode STDOUT;
STDOUT->autoflush(1);
# Output of the function goes to the log, and never between the replies.
select STDERR;

# Ids are repeated, and each reply is written before the next request is read: the worker may write
# requests ahead of time.
print STDOUT qq({"ready":true,"concurrency":1}\n);
while (my $line = <STDIN>) {
    my $request = $json->decode($line);
    print STDOUT answer($request->{id}, $request->{payload}), "\n";
}
