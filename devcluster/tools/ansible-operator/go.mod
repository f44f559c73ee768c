module pilothouse/tools/ansible-operator

go 1.26

require github.com/operator-framework/ansible-operator-plugins v1.42.2
