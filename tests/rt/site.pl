# What the tests need in a fresh RT: queues, users with more or less rights, and a token for each of them.
# Given to `rt-setup-database --action insert`; the tokens go to the file `tokens` in RT's own directory.
use strict;
use warnings;

our (@Queues, @Users, @ACL, @Final);

my @all = qw(SeeQueue ShowTicket ShowTicketComments CreateTicket CommentOnTicket ModifyTicket);
my %rights = (
    unlatch  => \@all,
    blind    => [grep { $_ ne 'ShowTicketComments' } @all],
    unseeing => [grep { $_ ne 'ShowTicket' } @all],
    reader   => [qw(SeeQueue ShowTicket ShowTicketComments)],
    stuck    => [grep { $_ ne 'ModifyTicket' } @all],
    outsider => [],
);

@Queues = ({ Name => 'DBoD', Lifecycle => 'service' }, { Name => 'Plain' }, { Name => 'Retired', Disabled => 1 });
@Users  = map {
    { Name => $_, Password => "s3cret-of-$_", Privileged => 1, EmailAddress => "$_\@example.org" }
} sort keys %rights;
for my $user (sort keys %rights) {
    for my $queue (qw(DBoD Plain Retired)) {
        push @ACL, map { { UserId => $user, Queue => $queue, Right => $_ } } @{ $rights{$user} };
    }
}

@Final = (
    sub {
        require RT::AuthToken;
        open my $out, '>', "$RT::VarPath/tokens" or die "tokens: $!";
        for my $name ('root', sort keys %rights) {
            my $user = RT::User->new(RT->SystemUser);
            $user->Load($name);
            my ($id, $words, $token) = RT::AuthToken->new(RT->SystemUser)
                ->Create(Owner => $user->Id, Description => 'tests of Unlatch');
            die "no token for $name: $words" unless $id;
            print {$out} "$name $token\n";
        }
        close $out or die "tokens: $!";
    }
);

1;
